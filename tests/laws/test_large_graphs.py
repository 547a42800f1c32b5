"""Sums in graphs whose tensors take more memory than TensorFlow's graph optimizer counts with.

Its memory optimizer would replace a sum of three or more tensors by additions to a temporary
variable, in the order in which the tensors are ready, and fail in nested loops.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.eager import context as eager


def test_sum_of_many_large_tensors_stays_a_sum():
    large = tf.random.stateless_uniform([1 << 21], [0, 0])  # 8 MiB

    @tf.function
    def repeated(x):
        def once(count, total):
            return count + 1, tf.add_n([tf.sin(x * float(k) + total) for k in range(64)])

        return tf.while_loop(lambda count, _: count < 2, once, [0, x])[1]

    eager.enable_run_metadata()
    try:
        repeated(large)
        found = eager.context().export_run_metadata()
    finally:
        eager.disable_run_metadata()
    graphs = [graph for each in found.function_graphs for graph in each.partition_graphs]
    operations = {node.op for graph in graphs for node in graph.node}
    assert "Sin" in operations and "TemporaryVariable" not in operations, operations
