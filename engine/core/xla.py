"""Choice of the code that XLA compiles, and of whether gradients are a separate function.

On two CPU cores, XLA is 1.5 to 2 times faster than the executor for a step of many small
operations, and several times slower for a step of a few convolutions. XLA is used on one device
only, because a compiled program cannot contain the communication between replicas.
"""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from engine.distributed.strategies import Devices
from engine.models.layers import MaxPool

_CONVOLUTION = 4  # rank of a convolution's kernel


def choose(
    jit: str,
    devices: Devices,
    model: tf.Module,
    others: Iterable[object],
    *,
    shards: int,
    augments: bool,
) -> str:
    """Resolves `--jit`: XLA compiles nothing ("off"), each "step" or the whole "loop".

    "auto" is "loop" on one CPU device without virtual shards or augmentation, if layers, task,
    metrics and optimizer are built in, and the model has no max pool and no variable of rank 4 or
    more, such as the kernel of a convolution; otherwise it is "off". The choice does not depend on
    the feed: XLA rounds differently, and a run must be bitwise identical whether its data is in
    memory or streamed.

    Args:
      jit: value of `--jit`: "auto", "off", "step" or "loop".
      devices: devices of the run.
      model: model to train.
      others: the task, its metrics and the optimizer.
      shards: number of virtual shards; 0: none.
      augments: whether training examples are augmented.

    Returns:
      "off", "step" or "loop".

    Raises:
      ValueError: if `jit` is "step" or "loop", and there are several replicas, virtual shards or a
        max pool.
    """
    pooled = any(isinstance(part, MaxPool) for part in model.submodules)
    if jit == "auto":
        ranks = [variable.shape.rank for variable in model.trainable_variables]
        small = not (augments or pooled) and max(ranks, default=0) < _CONVOLUTION
        alone = devices.replicas == 1 and not shards and not devices.are_gpus
        # User-defined classes may contain operations that XLA cannot compile.
        own = all(map(_is_own, [*model.submodules, *others]))
        return "loop" if small and alone and own else "off"
    if jit != "off":
        if devices.replicas > 1:
            raise ValueError(f"--jit={jit}: is for one device, and there are {devices.replicas}")
        if shards:
            raise ValueError(
                f"--jit={jit}: other numbers of devices give other bits than what XLA compiles, "
                "and --shards promises the same"
            )
        if pooled:
            raise ValueError(
                f"--jit={jit} --model={model.name}: XLA has no deterministic gradient "
                "of a max pool, and the network has one; give --jit=off, or a network without"
            )
    return jit


def apart(jit: str, devices: Devices, model: tf.Module) -> bool:
    """Returns whether `compute_gradients` should be a separate function, which is not inlined.

    This is so on one CPU device without XLA, for a model with convolutions and with max pools or
    user-defined parts, which may contain max pools. TensorFlow uses oneDNN's kernel for the
    gradient of a max pool only if it visits the pool before the gradient. In the cyclic graph of a
    loop, the order depends on memory addresses: in one of four starts, a network of two
    convolutions trains a seventh slower. The graph of a separate function is acyclic; a call of
    this function takes about 0.05 ms.

    Args:
      jit: result of `choose`.
      devices: devices of the run.
      model: model to train.
    """
    if jit != "off" or devices.are_gpus or devices.replicas > 1:
        return False
    convolutions = any(v.shape.rank == _CONVOLUTION for v in model.trainable_variables)
    # A user-defined layer may contain a max pool.
    return convolutions and any(isinstance(m, MaxPool) or not _is_own(m) for m in model.submodules)


def _is_own(part: object) -> bool:
    return getattr(part, "function", type(part)).__module__.partition(".")[0] == "engine"
