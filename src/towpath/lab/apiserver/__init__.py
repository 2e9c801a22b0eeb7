"""A Kubernetes API server for the lab: SQLite below, memory in front, real ``kubectl`` as its client."""
