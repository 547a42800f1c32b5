"""Augmentation of training examples: the transforms that `--augment` selects."""
