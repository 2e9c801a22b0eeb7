"""Subresources other than status, and the reviews, which store nothing."""
