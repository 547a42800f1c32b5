"""The training step, the training loop, evaluation and the training state."""
