"""Chooses what XLA compiles, and how TensorFlow's executor runs the rest.

On two CPU cores, XLA is 1.5 to 2 times faster than the executor for a step of many small
operations, and several times slower for a step of a few convolutions. It is used on one device
only, because a compiled program cannot contain the communication between replicas.
"""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from engine.distributed.strategies import Devices
from engine.models.layers import MaxPool

_CONVOLUTION = 4  # rank of a convolution's kernel
_OWN = ("engine", "models")


def choose(
    asked: str,
    devices: Devices,
    model: tf.Module,
    others: Iterable[object],
    *,
    shards: int,
    augments: bool,
) -> str:
    """Resolves `--jit` to "off", "step" or "loop".

    "auto" is the fastest known choice. It does not depend on the feed: XLA rounds differently, and
    a run must be bitwise identical with either feed (L4).

    Args:
      asked: value of `--jit`.
      devices: devices of the run.
      model: model to train.
      others: other objects that the loop calls: the task and the optimizer.
      shards: number of virtual shards of a batch; 0: none.
      augments: whether training examples are augmented.

    Raises:
      ValueError: if `--jit` requests XLA for a configuration that does not support it.
    """
    pooled = any(isinstance(part, MaxPool) for part in model.submodules)
    if asked == "auto":
        ranks = [variable.shape.rank for variable in model.trainable_variables]
        small = not (augments or pooled) and max(ranks, default=0) < _CONVOLUTION
        alone = devices.replicas == 1 and not shards and not devices.are_gpus
        # User-defined classes may contain operations that XLA cannot compile.
        own = all(map(_is_own, [*model.submodules, *others]))
        return "loop" if small and alone and own else "off"
    if asked != "off":
        if devices.replicas > 1:
            raise ValueError(f"--jit={asked}: is for one device, and there are {devices.replicas}")
        if shards:
            raise ValueError(
                f"--jit={asked}: other numbers of devices give other bits than what XLA compiles, "
                "and --shards promises the same"
            )
        if pooled:
            raise ValueError(
                f"--jit={asked} --model={model.name}: XLA has no deterministic gradient "
                "of a max pool, and the network has one; give --jit=off, or a network without"
            )
    return asked


def apart(jit: str, devices: Devices, model: tf.Module) -> bool:
    """Returns whether `compute_gradients` should be a separate function, which is not inlined.

    TensorFlow uses oneDNN's kernel for the gradient of a max pool only if its traversal of the
    graph visits the pool before the gradient. In the body of a loop, whose graph is cyclic, the
    order of the traversal depends on memory addresses: in one of four starts, a network of two
    convolutions trains a seventh slower. The graph of a separate function is acyclic. A call of it
    takes about 0.05 ms.
    """
    if jit != "off" or devices.are_gpus or devices.replicas > 1:
        return False
    convolutions = any(v.shape.rank == _CONVOLUTION for v in model.trainable_variables)
    # A user-defined layer may contain a max pool.
    return convolutions and any(isinstance(m, MaxPool) or not _is_own(m) for m in model.submodules)


def _is_own(part: object) -> bool:
    return type(part).__module__.partition(".")[0] in _OWN
