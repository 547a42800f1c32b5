"""What one GPU can tell in a few minutes: `python -m benchmarks.gpu --out=DIR`."""
