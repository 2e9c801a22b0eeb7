"""What a request does to the store."""
