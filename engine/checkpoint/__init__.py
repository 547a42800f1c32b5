"""Checkpoints and the run directory: file format, saving, listing and restoring."""
