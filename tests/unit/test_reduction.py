"""Reduction over shards: the same order of additions for any number of replicas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.distributed import reduction
from engine.distributed.reduction import pairwise_sum, reductions
from engine.distributed.strategies import check_shards
from engine.optim.clipping import Clip
from tests.harness import Training, norm_network, pictures, same_bits, strategy_of, training

SHARDS = 8


def parts() -> list[np.ndarray]:
    """Returns tensors of each shard, [shards, ...], whose sums depend on the order of additions."""
    random = np.random.default_rng(0)
    scale = 10.0 ** random.uniform(-6, 6, (SHARDS, 1))
    return [
        (scale * random.standard_normal((SHARDS, 50))).astype(np.float32),
        (scale[:, :, None] * random.standard_normal((SHARDS, 3, 4))).astype(np.float32),
        random.standard_normal(SHARDS).astype(np.float32),
    ]


def tree(stack: np.ndarray) -> np.ndarray:
    while len(stack) > 1:
        stack = stack[0::2] + stack[1::2]
    return stack[0]


def summed(stacks: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums the shards of one replica, [shards, ...], in a binary tree."""
    while stacks[0].shape[0] > 1:
        stacks = [stack[0::2] + stack[1::2] for stack in stacks]
    return [stack[0] for stack in stacks]


def reduced(replicas: int, shards: int) -> list[list[np.ndarray]]:
    """Returns the reduced sums on each replica."""
    strategy = strategy_of(replicas)
    _, reduce = reductions(shards)
    local = SHARDS // replicas

    @tf.function(autograph=False)
    def everywhere():
        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.cast(replica, tf.int32) * local + tf.range(local)
            stacks = [tf.gather(tf.constant(part), rows) for part in parts()]
            return reduce(summed(stacks) if shards else [tf.reduce_sum(s, 0) for s in stacks])

        return strategy.run(on_replica)

    results = [strategy.experimental_local_results(part) for part in everywhere()]
    return [[part.numpy() for part in replica] for replica in zip(*results, strict=True)]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_shards_summed_in_tree(replicas):
    for held in reduced(replicas, SHARDS):
        for ours, part in zip(held, parts(), strict=True):
            assert ours.tobytes() == tree(part).tobytes()


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_sum_without_shards(replicas):
    for held in reduced(replicas, 0):
        for ours, part in zip(held, parts(), strict=True):
            expected = part.astype(np.float64).sum(0)
            largest = np.abs(part).max(0)
            assert (np.abs(ours - expected) <= 1e-5 * largest).all()


def test_pairwise_sums_keep_their_order():
    """The optimized graph of a sum of sums adds in the order in which it is written."""
    stack = [tf.constant(part) for part in parts()[0]]

    @tf.function(autograph=False)
    def total(*shards):
        (found,) = pairwise_sum([shards[0]], pairwise_sum([shards[1]], [shards[2]]))
        return found

    a, b, c = (part.numpy() for part in stack[:3])
    expected = a + (b + c)
    assert (expected != (a + b) + c).any()
    assert total(*stack[:3]).numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(("shards", "replicas"), [(0, 1), (0, 2), (1, 1), (2, 2), (8, 4), (4, 1)])
def test_accepts_shards(shards, replicas):
    assert check_shards(shards, strategy_of(replicas)) == shards


@pytest.mark.parametrize(("shards", "replicas"), [(1, 2), (2, 4), (4, 3), (8, 3)])
def test_refuses_shards(shards, replicas):
    with pytest.raises(ValueError, match=f"--shards={shards}: {replicas} devices"):
        check_shards(shards, strategy_of(replicas))


def reductions_of(training: Training) -> int:
    """Returns the number of sums over the replicas in the traced step.

    On virtual CPU devices, such a sum is an AddN of a tensor of each replica.
    """
    graph = training.loop.graph().graph.as_graph_def()
    count = 0
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        device = {node.name: node.device for node in nodes}
        for node in nodes:
            inputs = {device.get(name.split(":")[0], "") for name in node.input}
            count += node.op == "AddN" and len(inputs) == len(node.input) > 1
    return count


def unpacked(tensors):
    """The all-reduce of each tensor by itself."""
    context = tf.distribute.get_replica_context()
    tensors = [tf.identity(tensor) for tensor in tensors]
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_one_reduction_for_all_tensors(monkeypatch, replicas: int, ema: float):
    """A step has one, and two for each batch norm; the bits are those of one for each tensor."""
    options = {"replicas": replicas, "batch": 8, "accumulate": 2, "ema": ema, "clip": Clip(norm=1)}
    packed = training(*pictures(27), network=norm_network, **options)
    assert reductions_of(packed) == 3
    monkeypatch.setattr(reduction, "all_reduce", unpacked)
    single = training(*pictures(27), network=norm_network, **options)
    # 6 gradients, values and weights of 2 statistics, the metric sums; 3 of batch norm, twice.
    assert reductions_of(single) == 17
    for each in (packed, single):
        for _ in range(3):
            each.loop.run(1)
    one, other = ([v.numpy() for v in each.state.model.variables] for each in (packed, single))
    assert same_bits(one, other)
    assert packed.state.sums.numpy().tobytes() == single.state.sums.numpy().tobytes()
