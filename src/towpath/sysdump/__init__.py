"""One archive for a bug report: what the cluster's pod network is and says, secrets removed."""
