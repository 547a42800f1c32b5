"""Checks of the scripts in examples/ on small data; `python -m tests.examples` runs all checks."""
