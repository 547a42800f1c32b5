"""What is done only where a tensor says so, without a copy.

What a branch changes XLA copies. What a loop changes it changes in place, and a loop of at most one
turn is a branch. TensorFlow's executor has branches that cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

ONCE = "once"  # name of a loop that takes one turn at most
_FEW = 1 << 15  # elements that are sooner written twice than branched around


def act_if(
    condition: tf.Tensor, act: Callable[[], None], moved: Sequence[tf.Variable], compiled: bool
) -> None:
    """Acts if the condition, bool [], holds.

    A loop takes longer than a small network's whole update: under XLA that is computed without any
    branch, to choose between new and old.

    Args:
      condition: whether it acts.
      act: changes variables.
      moved: all that it may change.
      compiled: whether XLA compiles it.
    """

    def once(*_: tf.Tensor) -> tuple[tf.Tensor]:
        act()
        return (tf.constant(False),)

    if not compiled:
        tf.cond(condition, lambda: once()[0], lambda: tf.constant(False))
    elif sum(variable.shape.num_elements() for variable in moved) > _FEW:
        tf.while_loop(lambda due: due, once, [condition], parallel_iterations=1, name=ONCE)
    else:
        before = [variable.read_value() for variable in moved]
        act()
        for variable, old in zip(moved, before, strict=True):
            chosen = tf.where(condition, variable.read_value(), old)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=chosen)
