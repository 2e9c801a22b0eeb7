"""What must hold before an upgrade of the pod network is begun."""
