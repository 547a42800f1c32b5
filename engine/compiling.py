"""What XLA compiles, what TensorFlow's executor calls, and on how many threads it is computed.

On two CPU cores XLA is 1.5 to 2 times faster than TensorFlow's executor where a step is many small
operations, and several times slower where it is a few convolutions. One device only: what replicas
exchange is no part of a compiled program.

Threads meet after each operation, which costs some 5 us: of a small network's operations more than
sharing them saves. The bits are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import tensorflow as tf

from engine.config import Config
from engine.distribute import Devices
from models import MaxPool

_CONVOLUTION = 4  # rank of its kernel
_OWN = ("engine", "models")
_DENSE = ("logistic", "mlp")
_SMALL = 1 << 15  # weights; logistic regression on MNIST has a quarter of it and gains a sixth


def choose(config: Config, devices: Devices, model: tf.Module, others: Iterable[object]) -> str:
    """What `--jit` means: "off", "step" or "loop".

    Auto is what is faster as far as is known, and nothing that depends on the feed: XLA rounds
    otherwise, and a run has the same bits with either (L4).

    Args:
      config: all options.
      devices: that are computed on.
      model: that is trained.
      others: what the loop computes besides: the task, the optimizer.

    Raises:
      ValueError: when that cannot be compiled.
    """
    asked = config.training.jit
    pooled = any(isinstance(part, MaxPool) for part in model.submodules)
    if asked == "auto":
        ranks = [variable.shape.rank for variable in model.trainable_variables]
        small = not (config.data.augment or pooled) and max(ranks, default=0) < _CONVOLUTION
        alone = devices.replicas == 1 and not config.training.shards and not devices.are_gpus
        # Of other people's operations nobody knows whether XLA can compile them.
        own = all(map(_is_own, [*model.submodules, *others]))
        return "loop" if small and alone and own else "off"
    if asked != "off":
        if devices.replicas > 1:
            raise ValueError(f"--jit={asked}: is for one device, and there are {devices.replicas}")
        if config.training.shards:
            raise ValueError(
                f"--jit={asked}: other numbers of devices give other bits than what XLA compiles, "
                "and --shards promises the same"
            )
        if pooled:
            raise ValueError(
                f"--jit={asked} --model={config.network.model}: XLA has no deterministic gradient "
                "of a max pool, and the network has one; give --jit=off, or a network without"
            )
    return asked


def apart(jit: str, devices: Devices, model: tf.Module) -> bool:
    """Whether what a piece contributes is to be a function of its own, called by the loop.

    TensorFlow takes oneDNN's kernel for the gradient of a max pool where it has come by the pool
    before, on a walk over the graph in the order of addresses in memory. In a loop's body, which is
    a circle, that is a matter of luck: a training of two convolutions is a seventh slower in one
    start of four. A function is no circle. A call of it takes some 0.05 ms.
    """
    if jit != "off" or devices.are_gpus or devices.replicas > 1:
        return False
    convolutions = any(v.shape.rank == _CONVOLUTION for v in model.trainable_variables)
    # What other people's networks do is not known.
    return convolutions and any(isinstance(m, MaxPool) or not _is_own(m) for m in model.submodules)


def may_be_small(config: Config) -> bool:
    """Whether `threads` is to be asked, which has to know the data: a dense network, compiled."""
    training = config.training
    dense = config.network.model in _DENSE and training.jit in ("auto", "loop")
    cut = training.virtual_devices > 1 or training.shards or config.data.augment
    return dense and not cut and training.strategy in ("auto", "cpu")


def threads(config: Config, image_shape: tuple[int, ...], classes: int) -> int:
    """Threads of one operation where that is left open; 0: one a core.

    Args:
      config: all options.
      image_shape: of an example.
      classes: how many there are.
    """
    if not may_be_small(config) or tf.config.list_physical_devices("GPU"):
        return 0
    hidden = config.network.hidden if config.network.model == "mlp" else ()
    widths = [math.prod(image_shape), *hidden, classes]
    weights = sum(before * after for before, after in itertools.pairwise(widths))
    return 1 if weights <= _SMALL else 0


def _is_own(part: object) -> bool:
    return type(part).__module__.partition(".")[0] in _OWN
