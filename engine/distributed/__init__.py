"""Multi-device and multi-worker training: strategies, reductions and the cluster."""
