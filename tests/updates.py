"""Runs fifty updates of an optimizer on random gradients, without a training loop."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from engine.distributed.reduction import all_reduce
from engine.optim.build import build_optimizer
from engine.optim.registry import OPTIMIZERS
from tests.harness import strategy_of

SHAPES = ((7, 5), (5,), (3, 3, 2, 4), (1, 4), (4, 6), (3,))
STILL = ((4, 6), (3,))  # tensors with a gradient of zero
STEPS = 50
OPTIONS = {"momentum": 0.85, "rho": 0.92, "beta_1": 0.9, "beta_2": 0.0, "epsilon": 1e-7}
DECAYING = ("adamw", "lamb", "lion", "muon")
DECAY = {name: 0.05 if name in DECAYING else 0.0 for name in OPTIMIZERS}

# Each step rounds each weight to float32 once: an error of at most half a unit in the last place,
# 2^-24, uniformly distributed, so 2^-24/sqrt(3) in root mean square. Over 50 steps errors add up as
# a random walk, to sqrt(50) * 2^-24 / sqrt(3) = 2.4e-7 of the weights' norm. Rounding the update
# adds less, and weight decay rounds once more.
CLOSE = 1e-6
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def start():
    """Returns initial weights, gradients [step][weight] and the learning rates of the steps.

    Weights and gradients are float32 arrays of the shapes `SHAPES`; rates are float64 [STEPS].
    """
    random = np.random.default_rng(7)
    weights = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    gradients = [
        [
            np.float32(random.normal(size=s) * 10.0 ** random.uniform(-2, 1) * (s not in STILL))
            for s in SHAPES
        ]
        for _ in range(STEPS)
    ]
    rates = 0.01 * (1.0 + 0.5 * np.sin(np.arange(STEPS)))
    return weights, gradients, rates


class Engine:
    """An optimizer of the engine, the variables that it updates, and the compiled update.

    Args:
      name: optimizer name.
      weights: initial values of the variables.
      decay: weight decay; None: that of `DECAY`.
      replicas: number of replicas.
      jit_compile: whether XLA compiles the update.
    """

    def __init__(self, name, weights, *, decay=None, replicas=1, jit_compile=False):
        self.strategy = strategy_of(replicas)
        decay = DECAY[name] if decay is None else decay
        self.optimizer = build_optimizer(name, weight_decay=decay, **OPTIONS)
        with self.strategy.scope():
            self.variables = [tf.Variable(weight) for weight in weights]
            self.optimizer.create_slots(self.variables)

        def on_replica(move, gradients, rate, turn):
            # Halving and adding on two replicas is exact.
            gradients = all_reduce([gradient / replicas for gradient in gradients])

            def update():
                self.optimizer.apply(gradients, self.variables, rate, turn)
                return 1

            return update() if move is None else tf.cond(move, update, lambda: 0)

        @tf.function(jit_compile=jit_compile)
        def update(move, gradients, rate, turn):
            self.strategy.run(on_replica, args=(move, gradients, rate, turn))

        self._update = update

    def apply(self, gradients, rate, turn, move=None):
        """Runs one update.

        Args:
          gradients: a gradient for each variable.
          rate: learning rate.
          turn: number of the update, from 0.
          move: whether to update, as the condition of a `tf.cond`; None: update without `tf.cond`.
        """
        move = None if move is None else tf.constant(move)
        gradients = [tf.constant(gradient) for gradient in gradients]
        self._update(move, gradients, tf.constant(rate, tf.float64), tf.constant(turn, tf.int64))

    def train(self, begin=0, end=STEPS, **how):
        _, gradients, rates = start()
        for turn in range(begin, end):
            self.apply(gradients[turn], rates[turn], turn, **how)
        return self

    @property
    def weights(self):
        return [variable.numpy() for variable in self.variables]

    def state(self, replica=0):
        """Returns the weights and optimizer slots on one replica, as arrays."""
        everything = (*self.variables, *self.optimizer.variables)
        return [self.strategy.experimental_local_results(v)[replica].numpy() for v in everything]


@functools.cache
def trained(name, **options):
    """Returns the weights after `STEPS` updates by the engine; `options` are those of `Engine`."""
    return Engine(name, start()[0], **options).train().weights


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
