"""Serves training with JAX and Optax as a benchmark contender.

    python jax_optax.py W1 mnist.npz '{"scan": 200}'

scan: number of steps in one `lax.scan`; 0: each step is a jitted call. See benchmarks/serve.py.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys

import jax
import numpy as np
import optax
from jax import numpy as jnp
from serve import serve
from workloads import EXAMPLES, RATE, SEED, WORKLOADS, Workload


def initial(workload: Workload, key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Returns initial weights, float32 (kernel, bias) of each layer; the biases are zeros."""
    if workload.network == "convolutional":
        shapes = [(3, 3, 1, 32), (3, 3, 32, 64), (1600, 10)]
    else:
        widths = [784, *workload.hidden, 10]
        shapes = list(itertools.pairwise(widths))
    make = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(shapes))
    return [
        (make(k, shape, jnp.float32), jnp.zeros(shape[-1]))
        for k, shape in zip(keys, shapes, strict=True)
    ]


def logits_of(workload: Workload, weights: list, x: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the network's logits in training, float32 [rows, 10].

    Args:
      workload: selects the network.
      weights: (kernel, bias) of each layer.
      x: images, uint8 [rows, 28, 28, 1].
      key: random key of dropout.
    """
    dtype = jnp.bfloat16 if workload.bfloat16 else jnp.float32
    x = x.astype(dtype) / 255
    weights = [(kernel.astype(dtype), bias.astype(dtype)) for kernel, bias in weights]
    if workload.network == "convolutional":
        for kernel, bias in weights[:2]:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + bias)
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        x = x.reshape(x.shape[0], -1)
        x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x / 0.5, 0)
        kernel, bias = weights[2]
        return (x @ kernel + bias).astype(jnp.float32)
    x = x.reshape(x.shape[0], -1)
    for place, (kernel, bias) in enumerate(weights):
        x = (jax.nn.relu(x) if place else x) @ kernel + bias
    return x.astype(jnp.float32)


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    workload, variant = WORKLOADS[sys.argv[1]], json.loads(sys.argv[3])
    with np.load(sys.argv[2]) as data:
        count = EXAMPLES[workload.batch]
        images = jnp.asarray(data["images"][:count])
        labels = jnp.asarray(data["labels"][:count].astype(np.int32))
    key = jax.random.PRNGKey(SEED)
    optimizer = optax.adam(RATE)
    weights = initial(workload, key)
    state = weights, optimizer.init(weights), jnp.zeros((), jnp.int32)

    def step(state: tuple, rows: jax.Array) -> tuple[tuple, jax.Array]:
        weights, slots, number = state

        def loss_of(weights: list) -> jax.Array:
            noise = jax.random.fold_in(key, number)
            logits = logits_of(workload, weights, images[rows], noise)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        updates, slots = optimizer.update(gradients, slots, weights)
        return (optax.apply_updates(weights, updates), slots, number + 1), loss

    one = jax.jit(step, donate_argnums=0)
    many = jax.jit(functools.partial(jax.lax.scan, step), donate_argnums=0)
    random, losses = np.random.default_rng(SEED), [float("nan")]
    waiting: list[np.ndarray] = []

    def batches(steps: int) -> np.ndarray:
        """Returns the row indices of the next steps, int32 [steps, batch]."""
        while sum(map(len, waiting)) < steps:
            order = random.permutation(count).astype(np.int32)
            waiting.append(order.reshape(-1, workload.batch))
        together = np.concatenate(waiting)
        waiting[:] = [together[steps:]]
        return together[:steps]

    def take(steps: int) -> int:
        nonlocal state
        last, taken = None, 0
        at_once = variant["scan"]
        while taken < steps and at_once:  # a length it was compiled for
            state, found = many(state, batches(at_once))
            last, taken = found[-1], taken + at_once
        for rows in batches(0 if at_once else steps):
            state, last = one(state, rows)
            taken += 1
        losses[0] = float(jax.block_until_ready(last))
        return taken

    take(variant["scan"] or 2)
    versions = {"jax": jax.__version__, "optax": optax.__version__}
    serve(take, versions, lambda: losses[0])


if __name__ == "__main__":
    main()
