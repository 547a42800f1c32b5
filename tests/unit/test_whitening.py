"""Weights that training data determine: the whitening of patches, and layers before it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.assembly.parts import assemble
from engine.config import flags
from tapeline import models
from tests.harness import same_bits

RANDOM = np.random.default_rng(0)
SHAPE = (6, 7, 3)
MIX = RANDOM.normal(size=(3, 3)) + 2 * np.eye(3)
IMAGES = (RANDOM.normal(size=(200, *SHAPE)) @ MIX).astype(np.float32)


def network(*layers):
    return models.Sequential("mine", layers, SHAPE, seed=0)


def test_outputs_are_white():
    """The first half of the filters has a covariance near the identity; the rest is negative."""
    model = network(models.Whitening(2, epsilon=1e-9))
    assert model.is_initialized_from_data and model.output_shapes == [(5, 6, 24)]
    model.initialize_from(tf.constant(IMAGES))
    outputs = model(tf.constant(IMAGES)).numpy().reshape(-1, 24).astype(np.float64)
    np.testing.assert_allclose(
        outputs[:, :12].T @ outputs[:, :12] / len(outputs), np.eye(12), atol=1e-3
    )
    np.testing.assert_allclose(outputs[:, 12:], -outputs[:, :12], rtol=1e-4, atol=1e-5)


def test_gradients_and_order():
    """Filters are ordered by eigenvalue; only the bias is trained."""
    model = network(models.Whitening(1))
    model.initialize_from(tf.constant(IMAGES))
    (layer,) = model.layers
    kernel = layer.kernel.numpy().reshape(3, 6)
    rows = IMAGES.reshape(-1, 3).astype(np.float64)
    values = np.linalg.eigvalsh(rows.T @ rows / len(rows))[::-1]
    np.testing.assert_allclose(
        np.linalg.norm(kernel[:, :3], axis=0), 1 / np.sqrt(values + 5e-4), rtol=1e-5
    )
    assert (np.take_along_axis(kernel[:, :3], np.abs(kernel[:, :3]).argmax(0)[None], 0) > 0).all()
    assert [variable.name for variable in model.trainable_variables] == ["0_whitening/bias:0"]


def test_constant_images():
    """Patches without variance give finite kernels."""
    model = network(models.Whitening(2))
    model.initialize_from(tf.ones([9, *SHAPE]))
    assert np.isfinite(model.layers[0].kernel.numpy()).all()


def test_layers_before():
    """A layer is initialized from the outputs of those before it."""
    first = models.Convolution(2, 3, activation="relu")
    model = network(first, models.Whitening(1), models.Flatten(), models.Dense(2))
    model.initialize_from(tf.constant(IMAGES))
    inputs = first(tf.constant(IMAGES), models.ForwardContext())
    alone = models.Sequential("alone", [models.Whitening(1)], (4, 5, 2), seed=1)
    alone.initialize_from(inputs)
    np.testing.assert_array_equal(model.layers[1].kernel, alone.layers[0].kernel)
    assert not network(models.Flatten()).is_initialized_from_data


@pytest.mark.parametrize(("size", "epsilon"), [(0, 1e-3), (2, 0.0), (2, float("nan"))])
def test_refused(size, epsilon):
    with pytest.raises(ValueError, match="of a whitening must be"):
        models.Whitening(size, epsilon)
    with pytest.raises(ValueError, match="needs an image of at least 8x8"):
        network(models.Whitening(8))


def test_in_a_run(tmp_path, cache_dir):
    """A run has the weights of its training data, the same in its EMA and on two devices."""
    from engine.models.registry import NETWORKS

    def whitened(outputs):
        return [
            models.Whitening(2),
            models.Activation("gelu"),
            models.Flatten(),
            models.Dense(outputs.shape[-1]),
        ]

    NETWORKS.register(whitened)
    try:
        kernels = []
        for devices in ((), ("--virtual_devices=2", "--strategy=mirrored")):
            given = [f"--run_dir={tmp_path / 'run'}", f"--cache_dir={cache_dir}", *devices]
            parts = assemble(
                flags.parse([*given, "--dataset=digits", "--model=whitened", "--ema=0.9"])
            )
            for model in (parts.model, parts.state.ema):
                kernels.append(model.layers[0].kernel.numpy())
            parts.close()
    finally:
        NETWORKS._entries.pop("whitened")
    assert np.abs(kernels[0]).max() > 0
    assert all(same_bits([kernels[0]], [each]) for each in kernels)
