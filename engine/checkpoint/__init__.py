"""Checkpoints of a run: file format, listing, saving and restoring."""
