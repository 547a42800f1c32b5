"""A schedule, an optimizer and a loss of your own.

    python examples/own_training.py --dataset=digits --task=focal_loss --task.gamma=2 \
        --optimizer=sign_descent --schedule=sawtooth --schedule.period=50 --epochs=20

15 s on two CPU cores; about 95% of the test digits are right.
"""

import tensorflow as tf

import tapeline as tl


@tl.task
class FocalLoss(tl.Classification):
    def __init__(self, metrics, *, gamma: float = 2.0):
        super().__init__(metrics=metrics)
        self.gamma = gamma

    def __call__(self, model, batch, context):
        output = super().__call__(model, batch, context)
        return output._replace(losses=output.losses * (1 - tf.exp(-output.losses)) ** self.gamma)


@tl.schedule
def sawtooth(*, period: int = 50):
    return lambda step: 1 - tf.cast(step % period, tf.float32) / period


@tl.optimizer
class SignDescent(tf.Module):
    def create_slots(self, variables):
        """Creates no slots."""

    def apply(self, gradients, variables, learning_rate, update):
        for gradient, variable in zip(gradients, variables, strict=True):
            variable.assign_sub(tf.cast(learning_rate, tf.float32) * tf.sign(gradient))


tl.main()
