"""In-place updates of variables that depend on a condition in the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

ONCE = "once"  # name of a loop of at most one iteration
_FEW = 1 << 15  # number of elements up to which writing each one twice is faster than a loop


def conditional_update(
    condition: tf.Tensor,
    update: Callable[[], None],
    variables: Sequence[tf.Variable],
    compiled: bool,
) -> None:
    """Updates variables in place if a condition in the graph is true.

    XLA copies the variables that a branch changes, but updates in place those that a loop changes.
    So if XLA compiles the update, a loop of at most one iteration replaces the branch. For a small
    network, the loop would take longer than the update: then XLA always executes the update, and
    afterwards restores the old values if the condition is false.

    Args:
      condition: bool [].
      update: assigns new values to some of `variables`; must have no other side effects.
      variables: all variables to which `update` may assign.
      compiled: whether XLA compiles the update.
    """

    def once(*_: tf.Tensor) -> tuple[tf.Tensor]:
        update()
        return (tf.constant(False),)

    if not compiled:
        tf.cond(condition, lambda: once()[0], lambda: tf.constant(False))
    elif sum(variable.shape.num_elements() for variable in variables) > _FEW:
        tf.while_loop(lambda due: due, once, [condition], parallel_iterations=1, name=ONCE)
    else:
        selected_update(condition, update, variables)


def selected_update(
    condition: tf.Tensor, update: Callable[[], None], variables: Sequence[tf.Variable]
) -> None:
    """Updates variables in place, and afterwards restores the old values if a condition is false.

    On a GPU, the host need not know the condition. Memory holds the old values of all variables
    until the new ones are selected, unless XLA fuses both.

    Args:
      condition: bool [].
      update: assigns new values to some of `variables`; must have no other side effects.
      variables: all variables to which `update` may assign.
    """
    before = [variable.read_value() for variable in variables]
    update()
    for variable, old in zip(variables, before, strict=True):
        selected = tf.where(condition, variable.read_value(), old)
        tf.raw_ops.AssignVariableOp(resource=variable.handle, value=selected)
