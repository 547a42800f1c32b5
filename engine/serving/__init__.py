"""Inference with a trained network: predictions, and export for serving."""
