"""Logging during training: metrics, TensorBoard, throughput and progress."""
