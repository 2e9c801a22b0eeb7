"""Addresses: allocation rules (pure) and the durable lease store."""
