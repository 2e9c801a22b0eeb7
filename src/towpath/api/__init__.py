"""The Kubernetes objects we read, as narrow frozen structs. Unknown fields are ignored."""
