"""Networks crop pixels that no output depends on, which changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tapeline import models
from tapeline.models import BatchNorm, Convolution, Dense, Dropout, Flatten, MaxPool

NETWORKS = {
    "pools": lambda: [
        *(Convolution(4), MaxPool(), Convolution(5), MaxPool()),
        *(Flatten(), Dense(3)),
    ],
    "stride": lambda: [Convolution(4, 3, 2), MaxPool(3), Flatten(), Dense(3)],
    "strides in front of a norm": lambda: [
        *(Convolution(4, 4, 2, activation="relu"), Convolution(5, 3, 2), BatchNorm()),
        *(models.Activation("relu"), Flatten(), Dense(3)),
    ],
    "activation": lambda: [
        *(Convolution(4), models.Activation("relu"), MaxPool()),
        *(Flatten(), Dense(3)),
    ],
    "norm in front of a pool": lambda: [
        *(Convolution(4), MaxPool(3), Convolution(4), BatchNorm(), MaxPool()),
        *(Flatten(), Dense(3)),
    ],
    "overlapping pool": lambda: [Convolution(4), MaxPool(3, 2), MaxPool(2, 3), Flatten(), Dense(3)],
    "padded pool": lambda: [Convolution(4), MaxPool(3, 2, 1), Flatten(), Dense(3)],
    "padding": lambda: [Convolution(4, padding="SAME"), MaxPool(4), Flatten(), Dense(3)],
    "dropout": lambda: [Convolution(4), Dropout(0.4), MaxPool(4), Flatten(), Dense(3)],
    "nothing spatial": lambda: [Flatten(), Dense(3)],
}
READ = {
    "pools": 14,  # 14 -> 12 -> 6 -> 4 -> 2
    "stride": 13,  # 13 -> 6 -> 2
    "strides in front of a norm": 12,  # 12 -> 5 -> 2
    "activation": 14,
    "norm in front of a pool": 14,  # 14 -> 12 -> 4 -> 2; the norm reads every pixel
    "overlapping pool": 13,  # 13 -> 11 -> 5 -> 2
    "padded pool": 15,
    "padding": 15,
    "dropout": 15,  # dropout draws for the whole input shape
    "nothing spatial": 15,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_matches_whole_computation(name):
    """Logits, gradients and statistics equal those computed without cropping."""
    network = models.Sequential("network", NETWORKS[name](), (15, 15, 1), 0)
    random = np.random.default_rng(0)
    images = random.random((6, 15, 15, 1), np.float32)
    found = _computed(network, images)
    with network.uncropped():
        expected = _computed(network, images)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    read = READ[name]
    other = images.copy()
    other[:, read:] = 1 - other[:, read:]
    other[:, :, read:] = 1 - other[:, :, read:]
    assert all(map(np.array_equal, _computed(network, other), found))
    if name not in ("padding", "dropout"):  # these read every pixel
        other = images.copy()
        other[:, read - 1, :read] = 1 - other[:, read - 1, :read]
        assert not np.array_equal(_computed(network, other)[0], found[0])


def _computed(network, images):
    context = models.ForwardContext(
        training=True, noise=models.StatelessRNG(0, tf.constant(0, tf.int64))
    )
    with tf.GradientTape() as tape:
        logits = network(tf.constant(images), context)
        loss = tf.reduce_sum(tf.square(logits))
    gradients = tape.gradient(loss, network.trainable_variables)
    statistics = [part for update in context.updates for part in update[1:]]
    return [np.asarray(each) for each in (logits, *gradients, *statistics)]
