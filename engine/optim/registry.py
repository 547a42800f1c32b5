"""Builds optimizers by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.optim.base import Optimizer
from engine.optim.fused import Adam, GradientDescent, Momentum, RMSProp
from engine.optim.lamb import Lamb
from engine.optim.lion import Lion
from engine.optim.muon import Muon
from engine.optim.weight_decay import DecoupledDecay

_DEFAULT_DECAY = 0.01
_DECAYING = ("adamw", "lamb", "lion", "muon")
_DEFAULT_BETA_2 = {"lion": 0.99}
_DECAYS_ITSELF = ("lamb",)


def build(
    name: str,
    *,
    momentum: float = 0.9,
    rho: float = 0.9,
    beta_1: float = 0.9,
    beta_2: float = 0.0,
    epsilon: float = 1e-7,
    weight_decay: float = -1.0,
) -> Optimizer:
    """Builds an optimizer: sgd, momentum, nesterov, rmsprop, adam, adamw, lamb, lion or muon.

    Args:
      name: name of the update rule.
      momentum: momentum of momentum, nesterov and muon.
      rho: decay of the mean square of rmsprop.
      beta_1: decay of the mean gradient; for lion, the share of the mean in the update.
      beta_2: decay of the mean square, and of lion's mean; 0: 0.99 for lion, 0.999 for the others.
      epsilon: constant added to denominators.
      weight_decay: weight decay, decoupled except in lamb, where it is part of the update; -1: 0.01
        for adamw, lamb, lion and muon, 0 for the others.

    Raises:
      ValueError: for an unknown name, and for a value that rounds to 0 or 1 in float32.
    """
    beta_2 = beta_2 or _DEFAULT_BETA_2.get(name, 0.999)
    if weight_decay < 0:
        weight_decay = _DEFAULT_DECAY if name in _DECAYING else 0.0
    rounded = {"momentum": momentum, "rho": rho, "beta_1": beta_1, "beta_2": beta_2}
    for option, value in rounded.items():
        if np.float32(value) >= 1:
            raise ValueError(f"--{option}={value}: is 1 in float32; give a smaller one")
    if np.float32(epsilon) < np.finfo(np.float32).tiny:
        raise ValueError(f"--epsilon={epsilon}: is 0 in float32; give a greater one")
    known: dict[str, Callable[[], Optimizer]] = {
        "sgd": GradientDescent,
        "momentum": lambda: Momentum(momentum, nesterov=False),
        "nesterov": lambda: Momentum(momentum, nesterov=True),
        "rmsprop": lambda: RMSProp(rho, epsilon),
        "adam": lambda: Adam(beta_1, beta_2, epsilon),
        "adamw": lambda: Adam(beta_1, beta_2, epsilon),
        "lamb": lambda: Lamb(beta_1, beta_2, epsilon, weight_decay),
        "lion": lambda: Lion(beta_1, beta_2),
        "muon": lambda: Muon(momentum, Adam(beta_1, beta_2, epsilon), epsilon),
    }
    if name not in known:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(known)}")
    optimizer = known[name]()
    if weight_decay and name not in _DECAYS_ITSELF:
        return DecoupledDecay(optimizer, weight_decay)
    return optimizer
