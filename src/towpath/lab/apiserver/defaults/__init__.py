"""What upstream fills in."""
