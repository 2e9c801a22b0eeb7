"""Hardened images: build of our own from Debian packages, audit of anybody's."""
