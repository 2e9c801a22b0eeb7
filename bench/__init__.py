"""Benchmarks: each measures Towpath and its peer in one run and prints one JSON line last, on stdout."""
