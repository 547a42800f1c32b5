"""Updates variables in place only where a tensor says so.

XLA copies what a branch changes, but a loop changes it in place: under XLA a loop of at most one
iteration stands in for a branch. In TensorFlow's executor `tf.cond` costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

ONCE = "once"  # name of a loop of at most one iteration
_FEW = 1 << 15  # elements up to which writing all of them twice is faster than a branch


def conditional_update(
    condition: tf.Tensor,
    update: Callable[[], None],
    variables: Sequence[tf.Variable],
    compiled: bool,
) -> None:
    """Calls `update` if the condition holds.

    For a small network a loop takes longer than the whole update: there XLA computes the update in
    any case, and chooses between new and old values.

    Args:
      condition: bool [].
      update: changes variables.
      variables: all that it may change.
      compiled: whether XLA compiles it.
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
            chosen = tf.where(condition, variable.read_value(), old)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=chosen)
