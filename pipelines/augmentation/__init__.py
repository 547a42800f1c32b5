"""Augmentation of training examples: what `--augment` selects, and the functions it names."""
