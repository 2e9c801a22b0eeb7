"""What a cluster's pod network consists of, as values: whatever CNI it runs."""
