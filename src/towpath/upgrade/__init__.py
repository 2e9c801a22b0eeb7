"""Upgrades of the pod network, conducted."""
