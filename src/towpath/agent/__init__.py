"""The node daemon: wires API, desired state, kernel and CNI together."""
