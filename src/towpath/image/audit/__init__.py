"""Judging an image by its files and configuration alone: no daemon, and nothing from the image is run."""
