"""Gradients -> updates.

An optimizer keeps its slots beside the variables they belong to and writes both in place. What
changes with the step (rate, bias correction) is computed once a step in float64 and handed over as
one float32 number. `build` makes one by its name.
"""

from engine.optimizers.contract import Optimizer
from engine.optimizers.registry import build

__all__ = ["Optimizer", "build"]
