"""The update rules: what the papers say, in float32, with nothing kept outside the state."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import optimizers

SHAPES = ((7, 5), (5,), (3, 3, 2, 4), (1, 4))
STEPS = 50
OPTIONS = {"momentum": 0.85, "rho": 0.92, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
DECAY = 0.05
NAMES = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw")

# Each step rounds each weight to float32 once: an error of at most half a unit in the last place,
# 2^-24, spread evenly, so 2^-24/sqrt(3) in the mean. Over 50 steps these add up as a random walk,
# to sqrt(50) * 2^-24 / sqrt(3) = 2.4e-7 of the weights' norm; rounding the update adds less.
CLOSE = 1e-6
# Keras makes Adam's bias correction in float32: 1 - 0.999^t is wrong by up to 2^-24, of 0.001 t.
# The root halves that: 3e-5 / t of an update of about the rate, 0.015 at most. Over 50 steps that
# is 0.015 * 3e-5 * (1 + 1/2 + ... + 1/50) = 2e-6 on weights of about 0.85.
CLOSE_TO_KERAS = {name: 3e-6 if name.startswith("adam") else CLOSE for name in NAMES}


def start():
    """Weights, float32 exactly, and gradients and rates of each step."""
    random = np.random.default_rng(7)
    weights = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    gradients = [
        [np.float32(random.normal(size=s) * 10.0 ** random.uniform(-2, 1)) for s in SHAPES]
        for _ in range(STEPS)
    ]
    rates = 0.01 * (1.0 + 0.5 * np.sin(np.arange(STEPS)))
    return weights, gradients, rates


class Reference:
    """One variable under one rule, in float64, from the paper."""

    def __init__(self, name, weight):
        self.name, self.weight = name, weight.astype(np.float64)
        self.first = np.zeros_like(self.weight)
        self.second = np.zeros_like(self.weight)

    def update(self, gradient, rate, turn):
        gradient = gradient.astype(np.float64)
        b1, b2, eps = OPTIONS["beta_1"], OPTIONS["beta_2"], OPTIONS["epsilon"]
        if self.name == "sgd":
            self.weight -= rate * gradient
        elif self.name in ("momentum", "nesterov"):
            self.first = OPTIONS["momentum"] * self.first - rate * gradient
            ahead = OPTIONS["momentum"] * self.first - rate * gradient
            self.weight += ahead if self.name == "nesterov" else self.first
        elif self.name == "rmsprop":
            rho = OPTIONS["rho"]
            self.second = rho * self.second + (1 - rho) * gradient**2
            self.weight -= rate * gradient / np.sqrt(self.second + eps)
        else:
            if self.name == "adamw" and self.weight.ndim > 1:
                self.weight -= rate * DECAY * self.weight
            self.first = b1 * self.first + (1 - b1) * gradient
            self.second = b2 * self.second + (1 - b2) * gradient**2
            alpha = rate * np.sqrt(1 - b2**turn) / (1 - b1**turn)
            self.weight -= alpha * self.first / (np.sqrt(self.second) + eps)


def build(name, weights):
    """The optimizer, its variables, and one update compiled."""
    optimizer = optimizers.build(name, weight_decay=DECAY if name == "adamw" else 0.0, **OPTIONS)
    variables = [tf.Variable(weight) for weight in weights]
    optimizer.create_slots(variables)

    @tf.function
    def update(gradients, rate, turn):
        optimizer.apply(gradients, variables, rate, turn)

    def apply(gradients, rate, turn):
        gradients = [tf.constant(gradient) for gradient in gradients]
        update(gradients, tf.constant(rate, tf.float64), tf.constant(turn, tf.int64))

    return optimizer, variables, apply


def trained(name, steps=STEPS):
    """Weights after `steps` updates by the engine."""
    weights, gradients, rates = start()
    _, variables, apply = build(name, weights)
    for turn in range(steps):
        apply(gradients[turn], rates[turn], turn)
    return [variable.numpy() for variable in variables]


def keras_optimizer(name):
    momentum, b = OPTIONS["momentum"], (OPTIONS["beta_1"], OPTIONS["beta_2"])
    eps = OPTIONS["epsilon"]
    return {
        "sgd": lambda: keras.optimizers.SGD(),
        "momentum": lambda: keras.optimizers.SGD(momentum=momentum),
        "nesterov": lambda: keras.optimizers.SGD(momentum=momentum, nesterov=True),
        "rmsprop": lambda: keras.optimizers.RMSprop(rho=OPTIONS["rho"], epsilon=eps),
        "adam": lambda: keras.optimizers.Adam(beta_1=b[0], beta_2=b[1], epsilon=eps),
        "adamw": lambda: keras.optimizers.AdamW(
            weight_decay=DECAY, beta_1=b[0], beta_2=b[1], epsilon=eps
        ),
    }[name]()


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_fifty_updates_are_those_of_the_paper(name):
    weights, gradients, rates = start()
    references = [Reference(name, weight) for weight in weights]
    for turn in range(STEPS):
        for reference, gradient in zip(references, gradients[turn], strict=True):
            reference.update(gradient, rates[turn], turn + 1)
    for weight, found, reference in zip(weights, trained(name), references, strict=True):
        assert found.dtype == np.float32
        assert error(found, reference.weight) < CLOSE
        # The weights went somewhere: what agrees is not their beginning.
        assert error(reference.weight, weight) > 0.02


@pytest.mark.parametrize("name", NAMES)
def test_fifty_updates_are_those_of_keras(name):
    weights, gradients, rates = start()
    optimizer = keras_optimizer(name)
    variables = [keras.Variable(weight) for weight in weights]
    if name == "adamw":
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    for turn in range(STEPS):
        optimizer.learning_rate = rates[turn]
        optimizer.apply_gradients(zip(gradients[turn], variables, strict=True))
    for found, variable in zip(trained(name), variables, strict=True):
        assert error(found, variable.numpy()) < CLOSE_TO_KERAS[name]


def test_adamw_decays_matrices_and_kernels_but_no_bias():
    weights, _, _ = start()
    _, variables, apply = build("adamw", weights)
    for turn in range(10):
        apply([np.zeros_like(weight) for weight in weights], 0.1, turn)
    for weight, variable in zip(weights, variables, strict=True):
        factor = (1 - 0.1 * DECAY) ** 10 if weight.ndim > 1 else 1.0
        assert error(variable.numpy(), weight * factor) < (CLOSE if weight.ndim > 1 else 1e-30)


def test_adamw_without_decay_is_adam_to_the_bit():
    weights, gradients, rates = start()
    found = []
    for name in ("adam", "adamw"):
        optimizer = optimizers.build(name, weight_decay=0.0, **OPTIONS)
        variables = [tf.Variable(weight) for weight in weights]
        optimizer.create_slots(variables)
        for turn in range(5):
            rate, update = tf.constant(rates[turn], tf.float64), tf.constant(turn, tf.int64)
            optimizer.apply([tf.constant(g) for g in gradients[turn]], variables, rate, update)
        found.append([variable.numpy().tobytes() for variable in variables])
    assert found[0] == found[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_continued_from_its_variables_ends_with_the_same_bits(name):
    weights, gradients, rates = start()
    optimizer, variables, apply = build(name, weights)
    for turn in range(20):
        apply(gradients[turn], rates[turn], turn)
    fresh, continued, go_on = build(name, [variable.numpy() for variable in variables])
    for old, new in zip(optimizer.variables, fresh.variables, strict=True):
        new.assign(old)
    for turn in range(20, STEPS):
        go_on(gradients[turn], rates[turn], turn)
    for found, wanted in zip(continued, trained(name), strict=True):
        assert found.numpy().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_slots_are_not_trained_and_have_the_shape_of_what_they_belong_to(name):
    weights, _, _ = start()
    optimizer, variables, _ = build(name, weights)
    assert not optimizer.trainable_variables
    for slot in optimizer.variables:
        assert not slot.numpy().any()
        assert slot.shape in [variable.shape for variable in variables]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("adam", "beta_1", 0.99999999),  # 1 in float32: no correction is left to divide by
        ("adam", "beta_2", 0.99999999),  # 1 in float32: the corrected rate is 0
        ("adam", "epsilon", 1e-50),  # 0 in float32: 0 / 0 for a weight without gradient
        ("rmsprop", "rho", 0.99999999),
        ("rmsprop", "epsilon", 1e-50),
    ],
)
def test_what_float32_rounds_to_the_bound_of_an_option_is_refused_or_does_no_harm(
    name, option, value
):
    try:
        optimizer = optimizers.build(name, **{**OPTIONS, option: value})
    except ValueError as error:
        assert f"--{option}={value}" in str(error)
        return
    variable = tf.Variable([0.0, 0.0])
    optimizer.create_slots([variable])
    rate, update = tf.constant(0.01, tf.float64), tf.constant(0, tf.int64)
    optimizer.apply([tf.constant([0.0, 1.0])], [variable], rate, update)
    still, moved = variable.numpy()
    assert still == 0.0 and -0.2 < moved < 0.0


def test_an_unknown_optimizer_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'lion'.*adamw"):
        optimizers.build("lion")
