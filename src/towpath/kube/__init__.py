"""Kubernetes API client: authentication, requests, and reflectors (list, then watch, for ever)."""
