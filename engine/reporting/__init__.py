"""Implements `--mode=report` and `--mode=evaluate`: reports on a run, a split or a data set."""
