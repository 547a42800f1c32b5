"""Several devices and several machines: strategies, reduction, and the workers of a cluster.

`cluster_config` reads which workers there are, `rendezvous` waits until all have joined, and
`liveness` monitors that they are alive; both use a `connection`. `cluster` runs these for one
process, from before TensorFlow is imported to the end. `collectives` makes the workers agree on
values on the host; of these modules, it alone imports TensorFlow.
"""
