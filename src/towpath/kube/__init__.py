"""The Kubernetes API: configuration, client, reflector. Speaks HTTP; knows nothing of networking."""
