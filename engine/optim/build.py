"""Builds optimizers by their registered names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from engine.config.option import written
from engine.config.registry import parameters
from engine.optim.base import Optimizer
from engine.optim.groups import Groups
from engine.optim.lamb import Lamb
from engine.optim.patterns import MATRICES, decay_factors, multipliers, selected
from engine.optim.registry import OPTIMIZERS
from engine.optim.weight_decay import CoupledDecay, DecoupledDecay, decayed, of_matrices


def build_optimizer(
    name: str,
    *,
    learning_rate: float = 0.0,
    momentum: float = 0.9,
    momentum_of: str = "updates",
    rho: float = 0.9,
    beta_1: float = 0.9,
    beta_2: float = 0.0,
    epsilon: float = 1e-7,
    weight_decay: float = -1.0,
    weight_decay_kind: str = "decoupled",
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
      momentum_of: what the velocity of momentum and nesterov sums, "updates" or "gradients".
      rho: decay of the mean square of rmsprop.
      beta_1: decay of the mean gradient; of lion, the weight of the mean gradient in the update.
      beta_2: decay of the mean square; of lion, that of the mean gradient. 0 stands for the
        factory's default.
      epsilon: number that keeps a denominator from 0.
      weight_decay: decay of the weights. A negative value stands for the factory's default. If the
        factory does not take it, a positive value wraps the optimizer in `DecoupledDecay` or
        `CoupledDecay`.
      weight_decay_kind: "decoupled" or "coupled".
      weight_decay_variables: patterns of the variables that the weight decay applies to, with
        factors of it; see `decay_factors`.
      learning_rate_multipliers: multipliers of the learning rate by pattern; see `multipliers`.
      variables: trainable variables by name, from which patterns select; None: no patterns.
      arguments: further arguments of the factory, by parameter name.

    Raises:
      ValueError: for an unknown name; if `momentum`, `rho`, `beta_1` or `beta_2` is 1 or more in
        float32; if `epsilon` is below the smallest normal float32; if the product of a decoupled
        weight decay and `learning_rate`, with the factor and the multiplier of a variable, is 1 or
        more; if a pattern selects no variable; if the weight decay is coupled and the optimizer has
        one of its own; or if `weight_decay_variables` is given for an optimizer without weight
        decay, or for one of a user with a weight decay of its own.
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
    values = {
        **below_1,
        "momentum_of": momentum_of,
        "epsilon": epsilon,
        "weight_decay": weight_decay,
    }
    if not beta_2:
        del values["beta_2"]
    if weight_decay < 0:
        del values["weight_decay"]
    accepted = parameters(factory)
    passed = {each: values[each] for each in accepted & values.keys()}
    coupled = weight_decay_kind == "coupled"
    if coupled and "weight_decay" in accepted:
        raise ValueError(
            f"--weight_decay_kind=coupled: --optimizer={name} has a weight decay of its own; give "
            "another optimizer, such as adam or momentum"
        )
    known = variables or {}
    names = {id(variable): each for each, variable in known.items()}
    decaying = f"--weight_decay_variables={weight_decay_variables}"
    decay_factor: Callable[[tf.Variable], float] = of_matrices
    if weight_decay_variables != MATRICES:
        decay_factor = _decay_factor(weight_decay_variables, known)

    def make() -> Optimizer:
        optimizer = factory(**passed, **(arguments or {}))
        if "weight_decay" not in accepted:
            optimizer = decayed(optimizer, max(weight_decay, 0.0), coupled)
        if decay_factor is of_matrices:
            return optimizer
        if not isinstance(optimizer, (DecoupledDecay, CoupledDecay, Lamb)):
            raise ValueError(
                f"{decaying}: --optimizer={name} has no weight decay, or one of its own; give "
                "--weight_decay"
            )
        optimizer.factor = decay_factor
        return optimizer

    optimizer = make()
    multiplier = dict.fromkeys(known, 1.0)
    if by_pattern := multipliers(learning_rate_multipliers):
        flag = f"--learning_rate_multipliers={learning_rate_multipliers}"
        found = selected(flag, list(by_pattern), known)
        multiplier |= {each: by_pattern[pattern] for each, pattern in found.items()}
    if isinstance(optimizer, DecoupledDecay):
        times = [value * decay_factor(known[each]) for each, value in multiplier.items()]
        _check_product(learning_rate, optimizer.decay, max(times, default=1.0))
    if by_pattern:
        return Groups(make, lambda variable: multiplier.get(names.get(id(variable), ""), 1.0))
    return optimizer


def _decay_factor(
    text: str, variables: Mapping[str, tf.Variable]
) -> Callable[[tf.Variable], float]:
    """Returns a function of a variable that returns the factor of its decay.

    Args:
      text: value of `--weight_decay_variables`.
      variables: trainable variables by name.

    Raises:
      ValueError: if a pattern selects no variable.
    """
    factors = decay_factors(text)
    found = selected(f"--weight_decay_variables={text}", list(factors), variables)
    of_variable = {id(variables[name]): factors[pattern] for name, pattern in found.items()}
    return lambda variable: of_variable.get(id(variable), 0.0)


def _check_product(learning_rate: float, decay: float, times: float) -> None:
    """Raises ValueError if an update takes the whole of a weight, or more, by decoupled decay.

    Args:
      learning_rate: highest learning rate.
      decay: the decay.
      times: largest product of multiplier of the learning rate and factor of the decay.
    """
    if decay * learning_rate * times < 1:
        return
    also = f", times {times:g}," if times != 1 else ""
    raise ValueError(
        f"--learning_rate={written(learning_rate)} --weight_decay={written(decay)}: an update "
        f"takes their product{also} of each weight, which is all of it or more: give a smaller "
        "--weight_decay"
    )
