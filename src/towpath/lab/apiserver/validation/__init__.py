"""What upstream refuses, in its words."""
