"""Choice of TensorFlow's number of intra-op threads.

Threads synchronize after each operation, in about 5 us, which is more than they save in a small
network. The results of such a network are bitwise identical with any number of threads.
"""

from __future__ import annotations

import itertools
import math

import tensorflow as tf

import pipelines
from engine.config.schema import Config
from engine.models.registry import DENSE

_SMALL = 1 << 15  # weights; logistic regression on MNIST has a quarter; 1 thread is a sixth faster


def may_be_small(config: Config) -> bool:
    """Returns whether the options select a run for which one intra-op thread may be enough.

    This is so for a network with dense layers only, on one CPU device, with a loop that XLA may
    compile, without augmentation and without shards. `threads` then decides by the number of
    weights, which depends on the shape of the data.
    """
    devices = config.devices
    dense = config.model.model in DENSE and config.loop.jit in ("auto", "loop")
    several = devices.virtual_devices > 1 or devices.shards or config.data.augment
    return dense and not several and devices.strategy in ("auto", "cpu")


def threads(config: Config, source: pipelines.Source) -> int:
    """Returns the number of intra-op threads for a run that sets none: 1, or 0 for the default.

    The number is 1 if `may_be_small` is true, there is no GPU, the inputs are one tensor, and the
    network has at most 2^15 weights. TensorFlow's default is one thread per core.
    """
    if not may_be_small(config) or tf.config.list_physical_devices("GPU"):
        return 0
    hidden = config.model.hidden if config.model.model == "mlp" else ()
    if not isinstance(source.inputs, tf.TensorSpec):
        return 0
    widths = [math.prod(source.inputs.shape), *hidden, max(source.classes, 1)]
    weights = sum(before * after for before, after in itertools.pairwise(widths))
    return 1 if weights <= _SMALL else 0
