"""Builds optimizers by name."""

from __future__ import annotations

import numpy as np

from engine.config.option import written
from engine.config.registry import parameters
from engine.optim.base import Optimizer
from engine.optim.registry import OPTIMIZERS
from engine.optim.weight_decay import DecoupledDecay, decayed


def build_optimizer(
    name: str,
    *,
    learning_rate: float = 0.0,
    momentum: float = 0.9,
    rho: float = 0.9,
    beta_1: float = 0.9,
    beta_2: float = 0.0,
    epsilon: float = 1e-7,
    weight_decay: float = -1.0,
) -> Optimizer:
    """Builds an optimizer of `OPTIMIZERS`, from those hyperparameters that its factory takes.

    Args:
      name: name of the optimizer.
      learning_rate: highest learning rate of the run, to check the weight decay; 0: no check.
      momentum: momentum of momentum, nesterov and muon.
      rho: decay of the mean square of rmsprop.
      beta_1: decay of the mean gradient; for lion, the share of the mean in the update.
      beta_2: decay of the mean square, and of lion's mean; 0: the default of the factory.
      epsilon: constant added to denominators.
      weight_decay: weight decay; decoupled, unless the factory takes it and does otherwise; -1: the
        default of the factory, 0 for one that does not take it.

    Raises:
      ValueError: for an unknown name, for a value that rounds to 0 or 1 in float32, and for a
        decoupled decay that takes all of a weight in one update.
    """
    factory = OPTIMIZERS[name]
    below_1 = {"momentum": momentum, "rho": rho, "beta_1": beta_1, "beta_2": beta_2}
    for option, value in below_1.items():
        if np.float32(value) >= 1:
            raise ValueError(f"--{option}={value}: is 1 in float32; give a smaller one")
    if np.float32(epsilon) < np.finfo(np.float32).tiny:
        raise ValueError(f"--epsilon={epsilon}: is 0 in float32; give a greater one")
    values = {**below_1, "epsilon": epsilon, "weight_decay": weight_decay}
    automatic = {"beta_2": not beta_2, "weight_decay": weight_decay < 0}
    taken = {each for each in parameters(factory) if each in values and not automatic.get(each)}
    optimizer = factory(**{each: values[each] for each in taken})
    if "weight_decay" not in parameters(factory):
        optimizer = decayed(optimizer, max(weight_decay, 0.0))
    if isinstance(optimizer, DecoupledDecay) and optimizer.decay * learning_rate >= 1:
        raise ValueError(
            f"--learning_rate={written(learning_rate)} --weight_decay={written(optimizer.decay)}: "
            "an update takes their product of each weight, which is all of it or more: give a "
            "smaller --weight_decay"
        )
    return optimizer
