"""Tests that `--spike` skips a faulty step, and skips no step of a run without a fault."""
