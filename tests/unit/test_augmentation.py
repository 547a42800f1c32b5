"""An augmented example depends on (seed, epoch, example) and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.core.augmentation import augmenter
from pipelines import BatchLayout, parse_augmentation
from pipelines.feeds.batch_layout import BatchPlan
from pipelines.feeds.resident import InMemoryFeed
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
