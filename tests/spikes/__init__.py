"""Tests that `--spike` skips a faulty step, and no step of a run without a fault."""
