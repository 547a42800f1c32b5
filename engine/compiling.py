"""What XLA compiles.

On two CPU cores XLA is 1.5 to 2 times faster than TensorFlow's executor where a step is many small
operations, and several times slower where it is a few convolutions. One device only: what replicas
exchange is no part of a compiled program.
"""

from __future__ import annotations

import tensorflow as tf

from engine.config import Config
from engine.distribute import Devices

_CONVOLUTION = 4  # rank of its kernel


def choose(config: Config, devices: Devices, model: tf.Module, feed_kind: str) -> str:
    """What `--jit` means: "off", "step" or "loop".

    Args:
      config: all options.
      devices: that are computed on.
      model: that is trained.
      feed_kind: "resident" or "stream".

    Raises:
      ValueError: when that cannot be compiled.
    """
    asked = config.training.jit
    if asked == "auto":
        ranks = [variable.shape.rank for variable in model.trainable_variables]
        small = not config.data.augment and max(ranks, default=0) < _CONVOLUTION
        alone = devices.replicas == 1 and not config.training.shards
        fits = small and alone and feed_kind == "resident" and not devices.are_gpus
        return "loop" if fits else "off"
    if asked != "off":
        if devices.replicas > 1:
            raise ValueError(f"--jit={asked}: is for one device, and there are {devices.replicas}")
        if config.training.shards:
            raise ValueError(
                f"--jit={asked}: other numbers of devices give other bits than what XLA compiles, "
                "and --shards promises the same"
            )
    if asked == "loop" and feed_kind == "stream":
        raise ValueError("--jit=loop: what --feed=stream reads comes in between; give --jit=step")
    return asked
