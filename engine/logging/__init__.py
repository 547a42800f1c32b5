"""Logging of a run: metrics, TensorBoard summaries, profiles, throughput and progress."""
