"""What runs in a pod on a node and reads what the API server does not know. It changes nothing."""
