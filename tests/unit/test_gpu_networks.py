"""The GPU benchmark's loops by hand train as the engine does, within rounding.

Only then are the speeds comparable. tests/unit/test_bare.py has W1.
"""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
from tensorflow.python.framework import config as determinism

from benchmarks.gpu import bare_steps, networks
from benchmarks.gpu.workloads import FULL, REHEARSED, GpuWorkload
from engine.assembly.parts import assemble
from engine.config import flags

STEPS = 4
TOLERANCE = 2e-5  # of the losses, relative; float32 has an epsilon of 1.2e-7


@pytest.fixture
def not_asked_to_be_deterministic():
    """Disables op determinism, under which XLA has no gradient of a max pool."""
    yield
    determinism.enable_op_determinism()


def in_float32(name: str) -> GpuWorkload:
    """Returns a workload in float32 whose examples are one batch, in whatever order."""
    workload = REHEARSED[name]
    data = {**workload.data, "examples": workload.batch}
    return workload._replace(precision="float32", data=data)


def engine_losses(workload: GpuWorkload, place) -> np.ndarray:
    # The file of the networks is imported already.
    options = [each for each in workload.options() if not each.startswith("--load=")]
    own = "--strategy=cpu", f"--cache_dir={place}/cache", f"--run_dir={place}/run", "--jit=off"
    config = flags.parse([*options, *own])
    with contextlib.closing(assemble(config)) as parts:
        loop = dataclasses.replace(parts.loop, watched=True)
        return np.concatenate([loop.run(1).losses for _ in range(STEPS)])


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("name", ["resnet50", "gpt2"])
def test_matches_engine(name, jit, tmp_path, monkeypatch, not_asked_to_be_deterministic):
    workload = in_float32(name)
    made = {}

    def once(*arguments):
        """Returns the same Keras model to both; the engine does not change its weights."""
        if "model" not in made:
            made["model"] = keras_residual(*arguments)
        return made["model"]

    keras_residual = networks.keras_residual
    monkeypatch.setattr(networks, "keras_residual", once)
    expected = engine_losses(workload, tmp_path)
    determinism.disable_op_determinism()
    loop = bare_steps.loop_of(workload, jit)
    losses = [loop.take(1) for _ in range(STEPS)]
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    assert losses[-1] < losses[0]


def test_gpt2_small_has_124_million_weights():
    sizes = FULL["gpt2"].arguments
    units, depth, vocabulary = sizes["units"], sizes["depth"], sizes["vocabulary"]
    block = 12 * units**2 + 13 * units
    weights = (vocabulary + FULL["gpt2"].data["context"]) * units + depth * block + 2 * units
    tiny = REHEARSED["gpt2"]
    small = tiny.arguments["units"]
    expected = (tiny.arguments["vocabulary"] + tiny.data["context"]) * small
    expected += 12 * small**2 + 13 * small + 2 * small
    module = networks.GPT2(context=tiny.data["context"], **tiny.arguments)
    assert sum(int(np.prod(v.shape)) for v in module.trainable_variables) == expected
    assert 124e6 < weights < 125e6


def test_keras_transformer_has_the_same_weights():
    from benchmarks.gpu import keras_steps

    tiny = REHEARSED["gpt2"]
    module = networks.GPT2(context=tiny.data["context"], **tiny.arguments)
    expected = sum(int(np.prod(v.shape)) for v in module.trainable_variables)
    assert keras_steps.transformer(tiny).count_params() == expected
