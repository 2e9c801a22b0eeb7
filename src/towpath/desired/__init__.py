"""Desired state of a node: pure functions from a snapshot to values."""
