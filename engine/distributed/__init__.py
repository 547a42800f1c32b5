"""Multi-device and multi-worker training: strategies, reductions and the cluster.

`cluster` manages the connections of one process (`rendezvous`, `liveness`) without TensorFlow.
"""
