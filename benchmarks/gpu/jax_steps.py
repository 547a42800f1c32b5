"""Measures training steps of GPT-2 in JAX on a GPU.

    python -m benchmarks.gpu.jax_steps gpt2 [--rehearse]

The network is that of benchmarks/gpu/networks.py. It trains on one batch in device memory; a jitted
call takes one step.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
from jax import numpy as jnp

from benchmarks.gpu import timing
from benchmarks.gpu.workloads import GpuWorkload
from benchmarks.workloads import RATE

_STDDEV = 0.02  # of initial weights
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
Weights = dict[str, Any]


def initial(workload: GpuWorkload) -> Weights:
    """Returns the initial weights, float32."""
    random, sizes = np.random.default_rng(0), workload.arguments
    units, depth = sizes["units"], sizes["depth"]

    def normal(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, np.float32) * _STDDEV * scale)

    def norm() -> list[jax.Array]:
        return [jnp.ones(units), jnp.zeros(units)]

    def dense(rows: int, columns: int, scale: float = 1.0) -> list[jax.Array]:
        return [normal(rows, columns, scale=scale), jnp.zeros(columns)]

    into = 1 / math.sqrt(2 * depth)
    return {
        "tokens": normal(sizes["vocabulary"], units),
        "positions": normal(workload.data["context"], units),
        "norm": norm(),
        "blocks": [
            {
                "norm_1": norm(),
                "attention": dense(units, 3 * units),
                "projection": dense(units, units, into),
                "norm_2": norm(),
                "expand": dense(units, 4 * units),
                "contract": dense(4 * units, units, into),
            }
            for _ in range(depth)
        ],
    }


def loss_of(weights: Weights, ids: jax.Array, targets: jax.Array, heads: int) -> jax.Array:
    """Returns the mean cross entropy of the targets, both int32 [rows, tokens]."""
    dtype = jnp.bfloat16
    x = (weights["tokens"][ids] + weights["positions"]).astype(dtype)
    rows, tokens, units = x.shape
    for block in weights["blocks"]:
        together = _dense(_normalized(x, *block["norm_1"]), *block["attention"])
        split = together.reshape(rows, tokens, 3, heads, units // heads)
        query, key, value = jnp.moveaxis(split, 2, 0)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x += _dense(mixed.reshape(rows, tokens, units), *block["projection"])
        expanded = jax.nn.gelu(_dense(_normalized(x, *block["norm_2"]), *block["expand"]))
        x += _dense(expanded, *block["contract"])
    logits = (_normalized(x, *weights["norm"]) @ weights["tokens"].astype(dtype).T).astype(
        jnp.float32
    )
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
    return -chosen.mean()


def _dense(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


def _normalized(x: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    mean, variance = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    return ((wide - mean) * jax.lax.rsqrt(variance + 1e-5) * gain + bias).astype(x.dtype)


def step_of(heads: int) -> Any:
    """Returns a jitted function that takes a step of Adam on (weights, slots, step, batch)."""

    def step(weights: Weights, slots: Any, number: jax.Array, batch: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(weights, *batch, heads)
        means = jax.tree.map(lambda m, g: m + (1 - _BETA_1) * (g - m), slots[0], gradients)
        squares = jax.tree.map(lambda s, g: s + (1 - _BETA_2) * (g * g - s), slots[1], gradients)
        number = number + 1
        rate = RATE * jnp.sqrt(1 - _BETA_2**number) / (1 - _BETA_1**number)
        new = jax.tree.map(
            lambda w, m, s: w - rate * m / (jnp.sqrt(s) + _EPSILON), weights, means, squares
        )
        return new, (means, squares), number, loss

    return jax.jit(step, donate_argnums=(0, 1))


def main() -> None:
    """Measures the steps, and prints lines of JSON."""
    args = timing.parser("jax_steps", __doc__).parse_args()
    workload, length = timing.workload_of(args)
    weights = initial(workload)
    slots = jax.tree.map(jnp.zeros_like, (weights, weights))
    shape = workload.batch, workload.data["context"] + 1
    ids = np.random.default_rng(0).integers(0, workload.data["vocabulary"], shape, np.int32)
    batch = jnp.asarray(ids[:, :-1]), jnp.asarray(ids[:, 1:])
    step = step_of(workload.arguments["heads"])
    state = weights, slots, jnp.zeros([])
    device = jax.devices()[0]

    def take(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            *state, loss = step(*state, batch)
        loss.block_until_ready()
        statistics = device.memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            figures["peak_gpu_memory_mb"] = statistics["peak_bytes_in_use"] / 2**20

    figures = {
        "workload": workload.name,
        "what": workload.what,
        "contender": "JAX",
        "precision": workload.precision,
        "batch": workload.batch,
        "jit": "step",
        "device": device.device_kind if device.platform == "gpu" else None,
        "versions": {"jax": jax.__version__},
    }
    timing.measure(take, figures, length)


if __name__ == "__main__":
    sys.exit(main())
