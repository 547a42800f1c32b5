"""Compares rounding errors in a 16-bit precision: those of several replicas and those of one.

The bound of `bounds.bound` counts the rounding of one layer. In a deep network with batch norm the
errors of all layers add up, so that two topologies are further apart than that, as are one device
in a 16-bit precision and the same device in float32. How far depends on the network; a multiple of
the unit roundoff does not hold for all. What holds for all is that several replicas add no error.
Relative to a run in float32 on one device, whose own error is negligible:

- The error of a tensor is a sum of roundings, of activations and of gradients, and of the units
  that these switch. Their signs are unrelated, so the expected square of the error's norm is the
  sum of their variances.
- One replica and several round the same numbers of activations and of their gradients, to the same
  unit roundoff. The reductions over replicas are in float32. Only the gradient of a weight is
  rounded once for each part of the batch instead of once, and `bounds.bound` allows for that.
- So both squares have the same expectation, and their quotient is near 1 if they have many
  independent terms. `FACTOR` = 2 allows a quotient of 4. For squares of k normal numbers, that is
  exceeded with a probability of 2% for k = 10, 0.2% for 20 and 1e-5 for 40 (F distribution). The
  tensors of a network together have far more.
- A single tensor may have few terms, and its error on one device may be small by chance. Its bound
  is `FACTOR` times the larger of its error on one device and the root mean square of the group.

By the triangle inequality, several replicas and one then differ by at most 1 + `FACTOR` times the
error of one device.

Errors are relative to the path, the sum of the norms of the updates. An error in the mathematics
has the size of the update: if gradients are summed instead of averaged, that of two replicas is a
whole update. If they are not reduced, the part of the other replica is missing: at least half of
the update on one of two, and 0.7 of it if the two parts are equally long and unrelated. Only a
smaller bound notices that. So `LARGEST`, the largest error of one device for which the comparison
says anything, is a quarter of the path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import tensorflow as tf

from engine.models.properties import named_variables
from engine.verify import bounds
from engine.verify.differences import Difference
from engine.verify.trajectory import Pairs

FACTOR = 2.0  # largest ratio of the error of several replicas to that of one
LARGEST = 0.25  # largest error of one device, relative to the path, that is compared with

Weights = Mapping[str, np.ndarray]


def single_steps(exact: Pairs, several: Pairs, precision: str) -> list[Difference]:
    """Returns the result of `compare` for single steps, each from the same state in all runs.

    Args:
      exact: for each step, the trajectory of one device in `precision`, and that of the same device
        in float32.
      several: for each of the same steps, the same trajectory of one device, and that of several
        replicas in `precision`.
      precision: key of `bounds.UNIT_ROUNDOFF`.
    """
    of_one: dict[str, float] = {}
    of_several: dict[str, float] = {}
    for step, ((one, reference), (_, many)) in enumerate(zip(exact, several, strict=True)):
        for found, run in ((of_one, one), (of_several, many)):
            of_step = errors(reference.weights, run.weights, reference.path)
            found.update({f"{name} in step {step}": error for name, error in of_step.items()})
    steps = range(len(exact))
    groups = [
        [f"{name} in step {step}" for step in steps for name in group]
        for group in kinds(exact[0][0].parts.state.model, exact[0][0].weights)
    ]
    return compare(of_one, of_several, groups, precision)


def kinds(model: tf.Module, names: Iterable[str]) -> list[list[str]]:
    """Returns the names of the trainable variables, and of the others, of a model and its EMA.

    Args:
      model: the model.
      names: keys of `trajectory.weights`.
    """
    found = named_variables(model)
    trained: list[list[str]] = [[], []]
    for name in names:
        trained[not found[name.partition("/")[2]].trainable].append(name)
    return trained


def errors(reference: Weights, values: Weights, path: Mapping[str, float]) -> dict[str, float]:
    """Returns the norm of each tensor's error, divided by its path, by name.

    Tensors that no update moved, of path 0, are left out.

    Args:
      reference: tensors of the run in float32, by name.
      values: tensors of the other run, by name.
      path: sums of the norms of the updates of the run in float32, by name.
    """
    return {
        name: float(np.linalg.norm(np.subtract(values[name], reference[name]))) / path[name]
        for name in reference
        if path[name]
    }


def compare(
    one: Mapping[str, float],
    several: Mapping[str, float],
    groups: Collection[Collection[str]],
    precision: str,
) -> list[Difference]:
    """Returns the errors of several replicas with their bounds, and those of one device.

    For each group there are the root mean square of the errors of one device, whose bound is
    `LARGEST`; that of several replicas, whose bound is `FACTOR` times the former; and the error of
    each tensor. An error within the bound of `bounds.bound` is within any of the last two.

    Args:
      one: result of `errors` for one device.
      several: result of `errors` for several replicas.
      groups: names of tensors whose errors are of one kind, such as those of all trainable
        variables. A name that `errors` left out is skipped.
      precision: key of `bounds.UNIT_ROUNDOFF`.
    """
    least, found = bounds.bound(precision, 1.0, 1.0), []
    for group in groups:
        names = [name for name in group if name in one]
        if not names:
            continue
        of_one, of_several = (_root_mean_square([e[n] for n in names]) for e in (one, several))
        label = f"mean error of {len(names)} tensors from {names[0]} on"
        found.append(Difference(f"{label}, on one device", of_one, LARGEST))
        found.append(Difference(label, of_several, max(FACTOR * of_one, least)))
        for name in names:
            allowed = max(FACTOR * max(one[name], of_one), least)
            found.append(Difference(name, several[name], allowed))
    return found


def _root_mean_square(values: Collection[float]) -> float:
    return float(np.sqrt(np.mean(np.square(list(values)))))
