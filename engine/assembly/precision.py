"""Resolves `--precision=auto` for the devices of a run."""

from __future__ import annotations

import tensorflow as tf

from engine.assembly.processor_choices import (
    PRECISION,
    ComputeDevices,
    chosen,
    network_of,
)
from engine.config.schema import Config, replaced
from engine.distributed import gpus
from engine.distributed.collectives import HostCollectives
from engine.distributed.options import DeviceOptions
from engine.optim.options import PRECISIONS
from engine.runtime import onednn
from engine.runtime.processor import this_processor

_CODES = (*PRECISIONS, "auto")


def resolved(config: Config, collectives: HostCollectives | None = None) -> Config:
    """Returns a configuration whose `--precision` is not "auto".

    With several workers, the value of the chief counts, which may be that of the run that it
    resumes. If the chief's is "auto", the precision is bfloat16 only if it is the choice of every
    worker. All workers must call this, after `HostCollectives.strategy`.

    Args:
      config: options of the run.
      collectives: collectives of the workers; None: there is one worker.

    Raises:
      RuntimeError: if the workers cannot reach each other.
    """
    precision = config.precision.precision
    if collectives:
        precision = _CODES[collectives.broadcast(_CODES.index(precision))]
    if precision == "auto":
        devices = ComputeDevices(this_processor(), capability(config.devices))
        precision = chosen(PRECISION, devices, network_of(config), onednn.state())
        if collectives and collectives.max(int(precision == "float32")):
            precision = "float32"
    return replaced(config, precision=precision)


def capability(options: DeviceOptions) -> tuple[int, int] | None:
    """Returns the least compute capability of the GPUs that the options use; None: a CPU computes.

    The capability of a GPU that does not tell it counts as (0, 0).
    """
    found = [] if options.strategy == "cpu" or options.virtual_devices else gpus.physical()
    if options.strategy == "gpu":
        found = found[:1]
    return min(map(_capability, found), default=None)


def _capability(gpu: tf.config.PhysicalDevice) -> tuple[int, int]:
    return tf.config.experimental.get_device_details(gpu).get("compute_capability") or (0, 0)
