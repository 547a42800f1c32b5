"""Serves W5 to W8 in JAX with Optax as a benchmark contender.

    python real_jax.py W6 float32 '{"scan": 10}'

scan: number of steps in one `lax.scan`; 0: each step is a jitted call. With a fourth argument,
prints the number of parameters and the losses of that many steps; see benchmarks/real/check.py.
"""

from __future__ import annotations

import functools
import json
import sys

import jax
import numpy as np
import optax
from jax import numpy as jnp

from benchmarks.real import arrays
from benchmarks.real.serving import checked, final_of
from benchmarks.real.specs import SEED, SPECS, Spec
from benchmarks.serve import serve

PADDING = 4
Weights = dict[str, jax.Array]


def logits_of(spec: Spec, w: Weights, inputs: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns the logits, float32 [..., classes], of images or ids of a batch."""
    if spec.network in ("plain", "resnet"):
        return _convolutional(spec, w, inputs.astype(dtype) / 255).astype(jnp.float32)
    if spec.network == "transformer":
        x = (w["tokens/table"][inputs] + w["positions/table"]).astype(dtype)
        x = _blocks(spec, w, x, True)
        return (x @ w["tokens/table"].T.astype(dtype)).astype(jnp.float32)
    x, patch = inputs.astype(dtype) / 255, spec.sizes["patch"]
    rows, many, channels = len(x), x.shape[1] // patch, x.shape[3]
    x = x.reshape(rows, many, patch, many, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    kernel = w["patches/kernel"].reshape(-1, spec.sizes["units"]).astype(dtype)
    x = x.reshape(rows, many**2, -1) @ kernel + w["patches/bias"].astype(dtype)
    token = jnp.broadcast_to(w["class/token"].astype(dtype), (rows, 1, x.shape[2]))
    x = jnp.concatenate([token, x], 1) + w["positions/table"].astype(dtype)
    return _dense(w, "head", _blocks(spec, w, x, False)[:, 0]).astype(jnp.float32)


def _convolutional(spec: Spec, w: Weights, x: jax.Array) -> jax.Array:
    if spec.network == "plain":
        for place in range(6):
            x = jax.nn.relu(_normed(spec, w, f"{place}", x, 1))
            if place % 2:
                window = (1, 2, 2, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        return _dense(w, "head", x.reshape(len(x), -1))
    x = jax.nn.relu(_normed(spec, w, "stem", x, 1))
    for stage in range(3):
        for block in range(spec.sizes["blocks"]):
            stride = 2 if stage and not block else 1
            y = jax.nn.relu(_normed(spec, w, f"{stage}.{block}.0", x, stride))
            y = _normed(spec, w, f"{stage}.{block}.1", y, 1)
            if stride == 2:
                x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, x.shape[3])))
            x = jax.nn.relu(x + y)
    return _dense(w, "head", x.astype(jnp.float32).mean((1, 2)).astype(x.dtype))


def _normed(spec: Spec, w: Weights, name: str, x: jax.Array, stride: int) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    kernel = w[f"{name}/kernel"].astype(x.dtype)
    x = jax.lax.conv_general_dilated(
        x, kernel, (stride,) * 2, ((1, 1), (1, 1)), dimension_numbers=layout
    )
    return _normalized(spec, w, name, x, (0, 1, 2))


def _normalized(spec: Spec, w: Weights, name: str, x: jax.Array, axes: tuple) -> jax.Array:
    wide = x.astype(jnp.float32)
    mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    unit = (wide - mean) * jax.lax.rsqrt(variance + spec.epsilon)
    return (unit * w[f"{name}/scale"] + w[f"{name}/offset"]).astype(x.dtype)


def _blocks(spec: Spec, w: Weights, x: jax.Array, causal: bool) -> jax.Array:
    rows, tokens, units = x.shape
    heads = spec.sizes["heads"]
    for block in range(spec.sizes["depth"]):
        y = _normalized(spec, w, f"{block}/norm_1", x, (-1,))
        query, value = (w[f"{block}/attention/{name}_bias"] for name in ("query", "value"))
        bias = jnp.concatenate([query, jnp.zeros_like(query), value]).astype(x.dtype)
        y = y @ w[f"{block}/attention/kernel"].astype(x.dtype) + bias
        split = y.reshape(rows, tokens, 3, heads, units // heads)
        mixed = jax.nn.dot_product_attention(*jnp.moveaxis(split, 2, 0), is_causal=causal)
        x += _dense(w, f"{block}/output", mixed.reshape(rows, tokens, units))
        y = _dense(w, f"{block}/expand", _normalized(spec, w, f"{block}/norm_2", x, (-1,)))
        x += _dense(w, f"{block}/contract", jax.nn.gelu(y, approximate=False))
    return _normalized(spec, w, "norm", x, (-1,))


def _dense(w: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ w[f"{name}/kernel"].astype(x.dtype) + w[f"{name}/bias"].astype(x.dtype)


def augmented(images: jax.Array, key: jax.Array) -> jax.Array:
    """Returns images, uint8 [rows, side, side, channels], padded, cropped, flipped at random."""
    side, border = images.shape[1], (PADDING, PADDING)
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
    first, second = jax.random.split(key)
    corners = jax.random.randint(first, (len(images), 2), 0, 2 * PADDING + 1)
    flips = jax.random.bernoulli(second, 0.5, (len(images),))

    def one(image: jax.Array, corner: jax.Array, flip: jax.Array) -> jax.Array:
        found = jax.lax.dynamic_slice(image, (*corner, 0), (side, side, image.shape[2]))
        return jnp.where(flip, found[:, ::-1], found)

    return jax.vmap(one)(padded, corners, flips)


def optimizer_of(spec: Spec) -> optax.GradientTransformation:
    """Returns Optax's optimizer of a workload; the decay is decoupled, and not of vectors."""
    settings = spec.settings
    parts = [optax.clip_by_global_norm(settings["clip"])] if "clip" in settings else []

    def mask(tree: Weights) -> dict[str, bool]:
        return {name: weight.ndim > 1 for name, weight in tree.items()}

    if spec.optimizer == "momentum":
        # As in SGD of PyTorch: the decay is added to the gradient.
        parts.append(optax.add_decayed_weights(settings["decay"], mask))
        parts.append(optax.sgd(settings["rate"], settings["momentum"]))
    else:
        own = {"b2": settings["beta_2"], "eps": settings["epsilon"]}
        decay = settings.get("decay", 0.0)
        parts.append(optax.adamw(settings["rate"], weight_decay=decay, mask=mask, **own))
    return optax.chain(*parts)


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    spec, precision, variant = SPECS[sys.argv[1]], sys.argv[2], json.loads(sys.argv[3])
    checks = int(sys.argv[4]) if sys.argv[4:] else 0
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    inputs, targets = map(jnp.asarray, arrays.examples_of(spec))
    optimizer, key = optimizer_of(spec), jax.random.PRNGKey(SEED)
    weights = {name: jnp.asarray(value) for name, value in arrays.initial(spec).items()}
    state = weights, optimizer.init(weights), jnp.zeros((), jnp.int32)

    def step(inputs: jax.Array, targets: jax.Array, state: tuple, rows: jax.Array) -> tuple:
        weights, slots, number = state
        x = inputs[rows]
        if spec.augment and not checks:
            x = augmented(x, jax.random.fold_in(key, number))

        def loss_of(weights: Weights) -> jax.Array:
            logits = logits_of(spec, weights, x, dtype)
            labels = targets[rows].astype(jnp.int32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        updates, slots = optimizer.update(gradients, slots, weights)
        return (optax.apply_updates(weights, updates), slots, number + 1), loss

    def scanned(inputs: jax.Array, targets: jax.Array, state: tuple, rows: jax.Array) -> tuple:
        return jax.lax.scan(functools.partial(step, inputs, targets), state, rows)

    one, many = jax.jit(step, donate_argnums=2), jax.jit(scanned, donate_argnums=2)
    random, losses = np.random.default_rng(SEED), [float("nan")]
    waiting: list[np.ndarray] = [np.zeros([0, spec.batch], np.int32)]

    def batches(steps: int) -> np.ndarray:
        """Returns the row indices of the next steps, int32 [steps, batch]."""
        while sum(map(len, waiting)) < steps:
            every = np.arange(spec.examples, dtype=np.int32)
            order = every if checks else random.permutation(every)
            waiting.append(order.reshape(-1, spec.batch))
        together = np.concatenate(waiting)
        waiting[:] = [together[steps:]]
        return together[:steps]

    def take(steps: int) -> int:
        nonlocal state
        last, taken, at_once = None, 0, variant["scan"]
        while taken < steps and at_once:  # a length it was compiled for
            state, found = many(inputs, targets, state, batches(at_once))
            last, taken = found[-1], taken + at_once
        for rows in batches(0 if at_once else steps):
            state, last = one(inputs, targets, state, rows)
            taken += 1
        losses[0] = float(jax.block_until_ready(last))
        return taken

    if checks:
        checked(take, lambda: losses[0], checks, sum(w.size for w in weights.values()))
        return
    take(variant["scan"] or 2)
    versions = {"jax": jax.__version__, "optax": optax.__version__}
    serve(take, versions, lambda: final_of(losses[0]))


if __name__ == "__main__":
    main()
