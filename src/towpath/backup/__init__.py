"""What a cluster's pod network was told, saved in one file, and brought back from it."""
