"""The phases of a training run, in the order in which they happen."""
