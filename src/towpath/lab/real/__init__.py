"""Real Kubernetes on this machine: upstream's own binaries as control plane and nodes of a lab."""
