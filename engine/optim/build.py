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
    """Builds a registered optimizer from the hyperparameters that its factory takes.

    Args:
      name: name of a registered optimizer.
      learning_rate: peak learning rate of the run, to check the weight decay; 0: no check.
      momentum: momentum coefficient of momentum, nesterov and muon.
      rho: decay rate of the second moment in rmsprop.
      beta_1: decay rate of the first moment; in lion, weight of the momentum in the update.
      beta_2: decay rate of the second moment; in lion, of the momentum; 0: default of the factory.
      epsilon: constant for numerical stability, added to denominators.
      weight_decay: weight decay, decoupled unless the factory implements it in another way, as that
        of lamb; -1: default of the factory, or 0 if the factory does not take it.

    Raises:
      ValueError: for an unknown name, for a momentum or decay rate that rounds to 1 in float32, for
        an epsilon below the smallest normal float32, and for a decoupled weight decay whose product
        with `learning_rate` is 1 or more.
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
