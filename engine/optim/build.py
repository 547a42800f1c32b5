"""Builds optimizers by their registered names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from engine.config.option import names_in, written
from engine.config.registry import parameters
from engine.optim.base import DecoupledDecay, Optimizer, decayed
from engine.optim.groups import Groups
from engine.optim.lamb import Lamb
from engine.optim.patterns import MATRICES, multipliers, selected
from engine.optim.registry import OPTIMIZERS


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
    weight_decay_variables: str = "matrices",
    learning_rate_multipliers: str = "",
    variables: Mapping[str, tf.Variable] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Builds a registered optimizer from the hyperparameters that its factory takes.

    Hyperparameters that are not parameters of the factory are checked, but not used, except
    `weight_decay`.

    Args:
      name: name of the optimizer (--optimizer).
      learning_rate: highest learning rate, only for the check of the weight decay.
      momentum: decay of the velocity of momentum, nesterov and muon.
      rho: decay of the mean square of rmsprop.
      beta_1: decay of the mean gradient; of lion, the weight of the mean gradient in the update.
      beta_2: decay of the mean square; of lion, that of the mean gradient. 0 stands for the
        factory's default.
      epsilon: number that keeps a denominator from 0.
      weight_decay: decay of the weights. A negative value stands for the factory's default. If the
        factory does not take it, a positive value wraps the optimizer in `DecoupledDecay`.
      weight_decay_variables: patterns of the variables that the weight decay applies to.
      learning_rate_multipliers: multipliers of the learning rate by pattern; see `multipliers`.
      variables: trainable variables by name, from which patterns select; None: no patterns.
      arguments: further arguments of the factory, by parameter name.

    Raises:
      ValueError: for an unknown name; if `momentum`, `rho`, `beta_1` or `beta_2` is 1 or more in
        float32; if `epsilon` is below the smallest normal float32; or if the product of a decoupled
        weight decay and `learning_rate`, with its largest multiplier, is 1 or more; if a pattern
        selects no variable; or if `weight_decay_variables` is given for an optimizer without
        weight decay, or with one of its own.
      TypeError: if `arguments` lacks a required parameter of the factory, or has a name that is not
        a parameter of the factory or is one of the hyperparameters passed to the factory.
    """
    factory = OPTIMIZERS[name]
    below_1 = {"momentum": momentum, "rho": rho, "beta_1": beta_1, "beta_2": beta_2}
    for option, value in below_1.items():
        if np.float32(value) >= 1:
            raise ValueError(f"--{option}={value}: is 1 in float32; give a smaller one")
    if np.float32(epsilon) < np.finfo(np.float32).tiny:
        raise ValueError(f"--epsilon={epsilon}: is 0 in float32; give a greater one")
    values = {**below_1, "epsilon": epsilon, "weight_decay": weight_decay}
    if not beta_2:
        del values["beta_2"]
    if weight_decay < 0:
        del values["weight_decay"]
    accepted = parameters(factory)
    passed = {each: values[each] for each in accepted & values.keys()}
    known = variables or {}
    names = {id(variable): each for each, variable in known.items()}
    decaying = f"--weight_decay_variables={weight_decay_variables}"

    def make() -> Optimizer:
        optimizer = factory(**passed, **(arguments or {}))
        if "weight_decay" not in accepted:
            optimizer = decayed(optimizer, max(weight_decay, 0.0))
        if weight_decay_variables == MATRICES:
            return optimizer
        if not isinstance(optimizer, (DecoupledDecay, Lamb)):
            raise ValueError(
                f"{decaying}: --optimizer={name} has no weight decay, or one of its own; give "
                "--weight_decay"
            )
        chosen = selected(decaying, names_in(weight_decay_variables), known)
        optimizer.decays = lambda variable: names.get(id(variable), "") in chosen
        return optimizer

    optimizer = make()
    factors = multipliers(learning_rate_multipliers)
    largest = max(factors.values(), default=1.0)
    if factors:
        flag = f"--learning_rate_multipliers={learning_rate_multipliers}"
        found = selected(flag, list(factors), known)
        if len(found) < len(known):
            largest = max(largest, 1.0)
        multiplier = {each: factors[pattern] for each, pattern in found.items()}
        grouped = Groups(make, lambda variable: multiplier.get(names.get(id(variable), ""), 1.0))
    if isinstance(optimizer, DecoupledDecay) and optimizer.decay * learning_rate * largest >= 1:
        times = f", times {largest:g}," if largest != 1 else ""
        raise ValueError(
            f"--learning_rate={written(learning_rate)} --weight_decay={written(optimizer.decay)}: "
            f"an update takes their product{times} of each weight, which is all of it or more: "
            "give a smaller --weight_decay"
        )
    return grouped if factors else optimizer
