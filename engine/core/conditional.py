"""Updates of variables in place, only if a condition in the graph holds."""

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
    """Executes `update`, which may assign only to `variables`, if `condition` is true.

    `condition` is a bool []. XLA copies the variables that a branch changes, but updates in place
    those that a loop changes. So if XLA compiles the update (`compiled`), a loop of at most one
    iteration replaces the branch. For a small network, the loop would take longer than the update:
    then XLA always computes the update, and selects the new or the old values.
    """

    def once(*_: tf.Tensor) -> tuple[tf.Tensor]:
        update()
        return (tf.constant(False),)

    if not compiled:
        tf.cond(condition, lambda: once()[0], lambda: tf.constant(False))
    elif sum(variable.shape.num_elements() for variable in variables) > _FEW:
        tf.while_loop(lambda due: due, once, [condition], parallel_iterations=1, name=ONCE)
    else:
        before = [variable.read_value() for variable in variables]
        update()
        for variable, old in zip(variables, before, strict=True):
            selected = tf.where(condition, variable.read_value(), old)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=selected)
