"""An augmented example depends on (seed, epoch, example) and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.core.augmentation import augmenter
from pipelines import (
    BatchLayout,
    SourceOptions,
    arrays,
    open_dataset,
    open_feed,
    parse_augmentation,
)
from pipelines.feeds.batch_layout import BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from pipelines.order import fixed
from tests.harness import pictures

EXAMPLES = 37
IMAGES, LABELS = pictures(EXAMPLES, seed=4)


def seen(spec: str, *, batch: int, layout: BatchLayout, epoch: int, seed: int = 0) -> dict:
    """Returns {example: (image, target)} of one epoch; the order identifies the examples."""
    augment = parse_augmentation(spec, IMAGES.shape[1:])
    plan = BatchPlan(
        examples=EXAMPLES,
        global_batch_size=batch,
        layout=layout,
        seed=seed,
        include_next_example=augment.mixes,
        include_fixed=augment.alternates,
    )
    feed = InMemoryFeed(IMAGES, LABELS, plan, tf.distribute.get_strategy())
    apply = augmenter(augment, 3, seed)
    found = {}
    for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
        _, given = feed.open(step, 1)
        for replica in range(layout.replicas):
            for micro_batch in range(layout.local_micro_batches):
                at = tf.constant(step, tf.int64)
                result = apply(feed.batch(feed.next(given), at, replica, micro_batch))
                arange = np.arange(plan.rows)
                _, places, valid = plan.positions(step, replica, micro_batch, arange)
                for row in arange[valid]:
                    example = plan.order(epoch)[places[row]]
                    assert example not in found
                    found[example] = (
                        result.inputs[row].numpy().tobytes(),
                        result.targets[row].numpy().tobytes(),
                    )
    assert len(found) == EXAMPLES
    return found


@pytest.mark.parametrize(
    "spec",
    [
        "shift,rotation,zoom,shear,elastic,cutout,flip",
        "shift,mixup:1",
        "flip:alternating,crop,mixup",
        "crop,flip,randaugment:1:20,color_jitter:0.4:0.4,cutmix,mixup",
    ],
)
@pytest.mark.parametrize(
    ("batch", "layout"),
    [
        (8, BatchLayout(2)),
        (8, BatchLayout(4)),
        (12, BatchLayout(1, 4)),
        (16, BatchLayout(2, 2, 4)),
        (37, BatchLayout()),
    ],
)
def test_batch_layout_keeps_bits(spec, batch, layout):
    """No layout of the batch changes a bit of an example."""
    one = seen(spec, batch=10, layout=BatchLayout(), epoch=1)
    assert one == seen(spec, batch=batch, layout=layout, epoch=1)


def test_epochs_and_seeds_differ():
    first = seen("shift", batch=8, layout=BatchLayout(), epoch=0)
    for other in (
        seen("shift", batch=8, layout=BatchLayout(), epoch=1),
        seen("shift", batch=8, layout=BatchLayout(), epoch=0, seed=1),
    ):
        same = sum(first[example][0] == other[example][0] for example in range(EXAMPLES))
        assert same < EXAMPLES / 4


def test_alternating_flips():
    """Each image is mirrored in every other epoch, about half of them in the first."""
    images = parse_augmentation("flip:alternating", IMAGES.shape[1:])
    assert images.numbers == 0 and images.alternates
    plain = [(IMAGES[example] / np.float32(255)).tobytes() for example in range(EXAMPLES)]
    mirrored = [
        (IMAGES[example][:, ::-1] / np.float32(255)).tobytes() for example in range(EXAMPLES)
    ]
    epochs = [
        seen("flip:alternating", batch=8, layout=BatchLayout(), epoch=epoch) for epoch in range(3)
    ]
    flipped = np.array(
        [[found[each][0] == mirrored[each] for each in range(EXAMPLES)] for found in epochs]
    )
    for found, row in zip(epochs, flipped, strict=True):
        for each in range(EXAMPLES):
            assert found[each][0] == (mirrored if row[each] else plain)[each]
    np.testing.assert_array_equal(flipped[0], ~flipped[1])
    np.testing.assert_array_equal(flipped[0], flipped[2])
    assert 8 < flipped[0].sum() < EXAMPLES - 8
    other = seen("flip:alternating", batch=8, layout=BatchLayout(), epoch=0, seed=1)
    assert any(other[each][0] != epochs[0][each][0] for each in range(EXAMPLES))


@pytest.mark.parametrize("kind", ["resident", "stream"])
def test_fixed_numbers(kind, tmp_path):
    """Each feed gives the numbers of its examples."""
    described = arrays(inputs=np.arange(EXAMPLES), targets=np.arange(EXAMPLES), shuffle=False)
    options = SourceOptions(cache_dir=str(tmp_path), validation_split="0")
    source = open_dataset("numbers", options, lambda: described)
    feed = open_feed(
        *(kind, source, source.train),
        global_batch_size=8,
        seed=3,
        layout=BatchLayout(1, 2),
        strategy=tf.distribute.get_strategy(),
        cache_dir=str(tmp_path),
        include_fixed=True,
    )
    expected = fixed(3, np.arange(EXAMPLES))
    assert expected.min() >= 0 and expected.max() < 1 and len(np.unique(expected)) == EXAMPLES
    for step in (0, 4, 7):
        given = feed.next(feed.open(step, 1).given)
        for micro_batch in range(2):
            batch = feed.batch(given, tf.constant(step, tf.int64), 0, micro_batch)
            np.testing.assert_array_equal(batch.fixed, expected[batch.inputs.numpy()])
    feed.close()
