"""Coupled weight decay, beside NumPy and PyTorch's formula, and with all else of an update."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.optim import schedules
from engine.optim.build import build_optimizer
from engine.optim.clipping import Clip
from engine.optim.lookahead import Lookahead, SlowDecay
from engine.optim.precision import LossScale
from engine.optim.registry import OPTIMIZERS
from pipelines import BatchLayout
from tests import papers
from tests.harness import put_together
from tests.updates import CLOSE, DECAYING, OPTIONS, SHAPES, STEPS, error, start
from tests.vectors import Linear, Vectors, Weights

DECAY = 0.05
UNDECAYED = [name for name in OPTIMIZERS.built_in if name not in DECAYING]
each_optimizer = pytest.mark.parametrize("name", UNDECAYED)


def updated(name, rates, **options):
    """Returns the weights after an update with each of `rates`, by coupled decay."""
    weights, gradients, _ = start()
    variables = [tf.Variable(weight) for weight in weights]
    optimizer = build_optimizer(
        name, **OPTIONS, weight_decay=DECAY, weight_decay_kind="coupled", **options
    )
    optimizer.create_slots(variables)

    @tf.function
    def update(gradients, rate, turn):
        optimizer.apply(gradients, variables, rate, turn)

    for turn, rate in enumerate(rates):
        given = [tf.constant(each) for each in gradients[turn]]
        update(given, tf.constant(rate, tf.float64), tf.constant(turn, tf.int64))
    return [variable.numpy() for variable in variables]


@each_optimizer
def test_matches_penalty(name):
    """The update is the optimizer's for the gradient of loss + decay / 2 * ||w||^2 of matrices."""
    weights, gradients, rates = start()
    references = [papers.Reference(name, w, {**OPTIONS, "weight_decay": 0.0}) for w in weights]
    for turn in range(STEPS):
        for reference, gradient in zip(references, gradients[turn], strict=True):
            penalty = DECAY * reference.weight if gradient.ndim > 1 else 0.0
            reference.update(gradient + penalty, rates[turn], turn + 1)
    for found, reference in zip(updated(name, rates), references, strict=True):
        assert error(found, reference.weight) < CLOSE


def pytorch_sgd(weight, gradients, rates, momentum, nesterov):
    """Returns a weight after updates by torch.optim.SGD's formula, with a dampening of 0."""
    weight, buffer = weight.astype(np.float64), None
    for gradient, rate in zip(gradients, rates, strict=True):
        gradient = gradient.astype(np.float64) + DECAY * weight
        if momentum:
            buffer = gradient if buffer is None else momentum * buffer + gradient
            gradient = gradient + momentum * buffer if nesterov else buffer
        weight = weight - rate * gradient
    return weight


@pytest.mark.parametrize("updates", [1, STEPS])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("momentum_of", ["updates", "gradients"])
def test_matches_pytorch(name, updates, momentum_of):
    """Decay of all variables; momentum of updates is PyTorch's with a constant rate."""
    weights, gradients, rates = start()
    if momentum_of == "updates":
        rates = np.full_like(rates, 0.01)
    known = {str(k): tf.Variable(weight) for k, weight in enumerate(weights)}
    optimizer = build_optimizer(
        *(name,),
        **OPTIONS,
        weight_decay=DECAY,
        weight_decay_kind="coupled",
        weight_decay_variables=".*",
        momentum_of=momentum_of,
        variables=known,
    )
    optimizer.create_slots(list(known.values()))
    for turn in range(updates):
        rate, update = tf.constant(rates[turn], tf.float64), tf.constant(turn, tf.int64)
        optimizer.apply([tf.constant(g) for g in gradients[turn]], known.values(), rate, update)
    momentum = 0.0 if name == "sgd" else OPTIONS["momentum"]
    for k, variable in enumerate(known.values()):
        given = [gradients[turn][k] for turn in range(updates)]
        wanted = pytorch_sgd(weights[k], given, rates[:updates], momentum, name == "nesterov")
        assert error(variable.numpy(), wanted) < CLOSE


@pytest.mark.parametrize("name", DECAYING)
def test_refused(name):
    """An optimizer with a decay of its own has no other."""
    with pytest.raises(ValueError, match=rf"^--weight_decay_kind=coupled: --optimizer={name} has"):
        build_optimizer(name, weight_decay_kind="coupled")


TOTAL, NORM = 24, 12.0
MULTIPLIERS = {"parts/1": 4.0}  # others: 1
FACTORS = {"parts/1": 0.25, "parts/5": 0.0}


@pytest.mark.parametrize(
    ("name", "layout"),
    [("nesterov", BatchLayout(1, 2)), ("momentum", BatchLayout(2)), ("adam", BatchLayout(1, 2))],
)
def test_with_all_else_of_an_update(name, layout):
    """Clipping comes before the decay; multipliers, factors and Lookahead are independent of it."""
    random = np.random.default_rng(3)
    weights = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    length = sum(weight.size for weight in weights)
    vectors = (random.normal(size=(TOTAL, 2, length)) * 1.3).astype(np.float32)
    rate = schedules.build_schedule("cosine", learning_rate=0.05, total_steps=TOTAL)
    run = put_together(
        lambda: Weights(*weights),
        lambda strategy: Vectors(vectors, layout),
        Linear(),
        layout=layout,
        optimizer=name,
        rule={
            **OPTIONS,
            "weight_decay": DECAY,
            "weight_decay_kind": "coupled",
            "weight_decay_variables": ",".join([*(f"{a}:{b}" for a, b in FACTORS.items()), ".*"]),
            "learning_rate_multipliers": ",".join(f"{a}:{b}" for a, b in MULTIPLIERS.items()),
        },
        rate=rate,
        clip=Clip(norm=NORM),
        make_loss_scale=lambda: LossScale("mixed_float16"),
        wrap=lambda optimizer: Lookahead(optimizer, 5, SlowDecay(0.7, 2.0, TOTAL)),
    ).take(TOTAL)

    ends = np.cumsum([weight.size for weight in weights])[:-1]
    references = [papers.Reference(name, w, {**OPTIONS, "weight_decay": 0.0}) for w in weights]
    slow = [reference.weight for reference in references]
    clipped = 0
    for step, gradient in enumerate(vectors.astype(np.float64).mean(1)):
        clipped += bool(np.linalg.norm(gradient) > NORM)
        parts = papers.clipped(np.split(gradient, ends), NORM)
        for k, (reference, part) in enumerate(zip(references, parts, strict=True)):
            each = f"parts/{k}"
            decay = DECAY * FACTORS.get(each, 1.0)
            here = papers.rate("cosine", step, TOTAL, 0.05) * MULTIPLIERS.get(each, 1.0)
            part = part.reshape(reference.weight.shape) + decay * reference.weight
            reference.update(part, here, step + 1)
            if (step + 1) % 5 == 0:
                kept = 0.7 * ((step + 1) / TOTAL) ** 2
                slow[k] = reference.weight = kept * slow[k] + (1 - kept) * reference.weight
    assert 0 < clipped < TOTAL
    for found, reference in zip(run.weights(), references, strict=True):
        assert error(found, reference.weight) < CLOSE
