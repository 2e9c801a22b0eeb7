"""Towpath: a Kubernetes pod network that can be upgraded without fear."""

__version__ = "0.1.0"
