"""The four patch formats, pure."""
