"""Benchmarks of Tapeline against a hand-written loop and against other frameworks."""
