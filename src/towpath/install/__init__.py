"""Towpath's own installation: values in, Kubernetes objects out; and what the init container does."""
