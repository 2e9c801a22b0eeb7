"""Extra networks of pods: what the Network Plumbing Working Group's de-facto standard says of them."""
