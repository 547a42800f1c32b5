"""The examples: what each has to pass, on small data; `python -m tests.examples` runs all of it."""
