"""What is known about RKE2's releases: versions, charts, and what is known to go wrong."""
