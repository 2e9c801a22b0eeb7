"""Open-loop probes of a pod network: what was lost, for how long, and whether anything denied got through."""
