"""A cluster on one machine, built from namespaces."""
