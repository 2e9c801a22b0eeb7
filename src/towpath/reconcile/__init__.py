"""The difference between observed and desired state, as ordered operations."""
