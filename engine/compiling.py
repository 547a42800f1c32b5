"""What XLA compiles.

On two CPU cores XLA is 1.5 to 2 times faster than TensorFlow's executor where a step is many small
operations, and several times slower where it is a few convolutions. One device only: what replicas
exchange is no part of a compiled program.
"""

from __future__ import annotations

from engine.config import Config
from engine.distribute import Devices


def choose(config: Config, devices: Devices, feed_kind: str) -> str:
    """What `--jit` means: "off", "step" or "loop".

    Auto is "off". It may not be what is fastest: the loop cannot be compiled around a stream, and
    XLA rounds otherwise, while a run has the same bits with either feed (L4).

    Args:
      config: all options.
      devices: that are computed on.
      feed_kind: "resident" or "stream".

    Raises:
      ValueError: when that cannot be compiled.
    """
    asked = config.training.jit
    if asked in ("auto", "off"):
        return "off"
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
