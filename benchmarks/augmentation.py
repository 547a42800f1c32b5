"""Measures the speed of augmentation, beside Keras's layers and tf.image, and its share of a step.

    python -m benchmarks.augmentation [--rounds=7] [--only=NAME,...] [--steps]

Batches of 128 random uint8 images of 32 x 32 x 3 are augmented in a loop in the graph: by the
engine's transforms, by Keras's preprocessing layers that do the same or nearly so, and image by
image with tf.image in a parallel map of tf.data, as tutorials do. All are measured in turn, in one
process. Prints a table of images/s, medians over the rounds, and of the medians of the ratios in a
round. "nothing" is the cast and the scaling alone, which is part of all of the engine's figures.

With `--steps`, it measures training steps of the built-in `cnn` on such images instead, with and
without augmentation, from the resident and from the stream feed, and prints milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from engine.runtime.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tapeline as tl  # noqa: E402
from benchmarks.input_options import PARALLEL, READY, without_autotune  # noqa: E402
from engine.assembly.parts import Parts, assemble  # noqa: E402
from engine.config import flags  # noqa: E402
from pipelines import parse_augmentation  # noqa: E402

ROWS, SHAPE, CLASSES = 128, (32, 32, 3), 10
BATCHES = 24  # in a block
EXAMPLES = 1280  # of the data set of `--steps`
CIFAR, VIT = "crop,flip", "crop,flip,randaugment,mixup:0.2,cutmix"
TRANSFORMS = (
    *("", "flip", "crop", CIFAR, "cutout", "mixup", "cutmix", "shift:4", "rotation:15"),
    *("color_jitter:0.4:0.4:0.4", "color_jitter", "randaugment", VIT),
)
STEPS = (
    ("", "resident"),
    (CIFAR, "resident"),
    (VIT, "resident"),
    ("", "stream"),
    (CIFAR, "stream"),
)
Block = Callable[[], Any]  # augments BATCHES batches


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, uint8 [ROWS + 1, *SHAPE], and labels, int32 [ROWS + 1]."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (ROWS + 1, *SHAPE), np.uint8)
    return images, random.integers(0, CLASSES, ROWS + 1).astype(np.int32)


def looped(augment: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]) -> Block:
    """Returns a function that calls `augment` BATCHES times in one graph, one after the other.

    `augment` gets images, labels and the number of the batch, float32 [], which changes with the
    result of the batch before: nothing can be computed once for all batches. It returns images.
    """
    images, labels = (tf.constant(each) for each in images_and_labels())

    @tf.function
    def block() -> tf.Tensor:
        total = tf.zeros([])
        for number in tf.range(BATCHES):
            augmented = augment(images, labels, tf.cast(number, tf.float32) + total * 1e-20)
            total += augmented[0, 0, 0, 0]
        return total

    return block


def ours(spec: str) -> Block:
    """Returns a block of the engine's transforms, with random numbers that are drawn in it."""
    augmentation = parse_augmentation(spec, SHAPE)

    def augment(images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        if augmentation is None:
            return tf.cast(images[:ROWS], tf.float32) / 255 + number * 0
        rows = ROWS + augmentation.mixes
        seed = tf.cast(tf.stack([number, 0.0]), tf.int32)
        uniform = tf.random.stateless_uniform([rows, augmentation.numbers], seed)
        return augmentation(images[:rows], labels[:rows], uniform, CLASSES)[0]

    return looped(augment)


def by_keras(spec: str) -> Block | None:
    """Returns a block of Keras's layers that are nearest to the transforms; None: there are none.

    The crop is a translation by whole pixels with reflection; cutout is a random erasing.
    """
    from keras import layers

    every = {"value_range": (0, 255)}
    pad, side = 4 / SHAPE[0], 9 / SHAPE[0]
    known: dict[str, Callable[[], Any]] = {
        "flip": lambda: layers.RandomFlip("horizontal"),
        "crop": lambda: layers.RandomTranslation(pad, pad, "reflect", "nearest"),
        "cutout": lambda: layers.RandomErasing(1.0, (side**2, side**2), fill_value=0, **every),
        "mixup": lambda: layers.MixUp(0.2),
        "mixup:0.2": lambda: layers.MixUp(0.2),
        "cutmix": lambda: layers.CutMix(1.0),
        "shift:4": lambda: layers.RandomTranslation(pad, pad, "constant"),
        "rotation:15": lambda: layers.RandomRotation(15 / 360, "constant"),
        "color_jitter:0.4:0.4:0.4": lambda: layers.RandomColorJitter(
            brightness_factor=0.4, contrast_factor=0.4, saturation_factor=(0.3, 0.7), **every
        ),
        "color_jitter": lambda: layers.RandomColorJitter(
            brightness_factor=0.4,
            contrast_factor=0.4,
            saturation_factor=(0.3, 0.7),
            hue_factor=0.1,
            **every,
        ),
        "randaugment": lambda: layers.RandAugment(num_ops=2, factor=0.3, **every),
    }
    if not spec:
        return None
    chain = [known[name]() for name in spec.split(",")]

    def augment(images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        result: Any = tf.cast(images[:ROWS], tf.float32) + number * 0
        pair = {"images": result, "labels": tf.one_hot(labels[:ROWS], CLASSES)}
        for layer in chain:
            if type(layer).__name__ in ("MixUp", "CutMix"):
                pair = layer(pair, training=True)
            else:
                pair = pair | {"images": layer(pair["images"], training=True)}
        return tf.cast(pair["images"], tf.float32) / 255

    with tf.device("CPU:0"):
        augment(*(tf.constant(each) for each in images_and_labels()), tf.zeros([]))  # creates state
    return looped(augment)


def by_tf_image(spec: str) -> Block | None:
    """Returns a block of tf.image's functions of one image, in tf.data; None: there are none."""

    def crop(image: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(image, [[4, 4], [4, 4], [0, 0]], "REFLECT")
        return tf.image.random_crop(padded, SHAPE)

    def jitter(image: tf.Tensor) -> tf.Tensor:
        image = tf.image.random_brightness(image, 0.4)
        image = tf.image.random_contrast(image, 0.6, 1.4)
        return tf.image.random_saturation(image, 0.6, 1.4)

    known: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
        "flip": tf.image.random_flip_left_right,
        "crop": crop,
        "color_jitter:0.4:0.4:0.4": jitter,
        "color_jitter": lambda image: tf.image.random_hue(jitter(image), 0.1),
    }
    names = spec.split(",")
    if not set(names) <= set(known):
        return None

    def augment(image: tf.Tensor) -> tf.Tensor:
        for name in names:
            image = known[name](image)
        return tf.cast(image, tf.float32) / 255

    dataset = (
        tf.data.Dataset.from_tensor_slices(images_and_labels()[0][:ROWS])
        .repeat(BATCHES)
        .map(augment, num_parallel_calls=PARALLEL)
        .batch(ROWS)
        .prefetch(READY)
    )
    dataset = without_autotune(dataset)

    def block() -> tf.Tensor:
        total = tf.zeros([])
        # An iterator that outlives the block would go on while the others are measured.
        for images in dataset:
            total += images[0, 0, 0, 0]
        return total

    return block


def seconds(block: Block) -> float:
    """Returns how long a block takes."""
    started = time.perf_counter()
    block()
    return time.perf_counter() - started


def compare(specs: tuple[str, ...], rounds: int) -> None:
    """Prints the table of images/s of each of the transforms."""
    print("| transform | images/s | ms a batch | over Keras's layers | over tf.image a row |")
    print("|---|---|---|---|---|", flush=True)
    for spec in specs:
        blocks = [ours(spec), by_keras(spec), by_tf_image(spec)]
        for block in blocks:
            if block:
                block()
        taken = [[seconds(block) if block else 0.0 for block in blocks] for _ in range(rounds)]
        ours_taken = statistics.median(first for first, *_ in taken)
        ratios = [
            f"{statistics.median(each[at] / each[0] for each in taken):.1f}" if blocks[at] else "-"
            for at in (1, 2)
        ]
        rate, milliseconds = BATCHES * ROWS / ours_taken, ours_taken / BATCHES * 1000
        name = f"`{spec}`" if spec else "nothing"
        print(f"| {name} | {rate:,.0f} | {milliseconds:.2f} | {' | '.join(ratios)} |", flush=True)


def assembled(place: str, augment: str, feed: str) -> Parts:
    """Returns the parts of a run that trains the `cnn` on random images, batch ROWS."""
    name = f"{feed}_{augment.count(',')}"
    small = ["--validation_split=0", "--test_split=", f"--global_batch_size={ROWS}", "--jit=off"]
    where = [f"--run_dir={place}/{name}", f"--cache_dir={place}/cache", "--dataset=noise"]
    options = [f"--augment={augment}", f"--feed={feed}", "--progress=off", "--epochs=1000000"]
    return assemble(flags.parse([*small, *where, "--model=cnn", *options]))


def steps(rounds: int) -> None:
    """Prints the milliseconds of a step of the `cnn` for each augmentation and feed."""

    @tl.source
    def noise() -> Any:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (EXAMPLES, *SHAPE), np.uint8)
        labels = random.integers(0, CLASSES, EXAMPLES).astype(np.int32)
        return tl.arrays(inputs=images, targets=labels, class_names=CLASSES)

    with tempfile.TemporaryDirectory() as place:
        runs = [assembled(place, *each) for each in STEPS]

        def milliseconds(parts: Parts) -> float:
            started = time.perf_counter()
            parts.loop.run(parts.steps_per_epoch)
            return (time.perf_counter() - started) / parts.steps_per_epoch * 1000

        for parts in runs:
            milliseconds(parts)
        taken = [[milliseconds(parts) for parts in runs] for _ in range(rounds)]
    print("| `cnn`, a step | feed | ms | over none |\n|---|---|---|---|")
    for at, (augment, feed) in enumerate(STEPS):
        none = next(i for i, (_, other) in enumerate(STEPS) if other == feed)
        median = statistics.median(each[at] for each in taken)
        ratio = statistics.median(each[at] / each[none] for each in taken)
        print(f"| {f'`{augment}`' if augment else 'none'} | {feed} | {median:.1f} | {ratio:.3f} |")


def main() -> None:
    """Measures and prints one of the two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augmentation")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="transforms, separated by ;")
    parser.add_argument("--steps", action="store_true", help="training steps instead")
    given = parser.parse_args()
    if given.steps:
        steps(given.rounds)
    else:
        compare(tuple(given.only.split(";")) if given.only else TRANSFORMS, given.rounds)


if __name__ == "__main__":
    main()
