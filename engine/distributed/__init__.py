"""Multi-device and multi-worker training: strategies, reduction and the cluster.

`cluster_config` reads the cluster from the environment, `rendezvous` waits until all workers have
connected, and `liveness` detects lost workers; both use a `connection`. `cluster` manages them for
one process; it is entered before TensorFlow is imported. `collectives` exchanges host values
between workers (gather, max, broadcast); of these modules, only it imports TensorFlow.
"""
