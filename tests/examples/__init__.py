"""Checks of the commands in examples/ on small data; `python -m tests.examples` runs all checks."""
