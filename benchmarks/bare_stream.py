"""A hand-written tf.data pipeline that reads MNIST's TFRecord files in file order.

    python bare_stream.py DATA_DIR '{"decode": "each", "ordered": true, "reads": "tuned"}'

decode: "each" decodes single examples before batching; "batch" parses whole batches and decodes
them with `tf.map_fn`; "unrolled" parses whole batches and decodes them without a loop. ordered:
whether the order of the batches is deterministic. reads: number of files that are read in parallel,
"tuned" (AUTOTUNE) or "one". The number of parallel decodes is AUTOTUNE. A step reads one batch; see
benchmarks/serve.py.
"""

from __future__ import annotations

import glob
import json
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from serve import serve
from workloads import EXAMPLES

BATCH = 128
AUTOTUNE = tf.data.AUTOTUNE
READY = 2  # batches; AUTOTUNE would prefetch hundreds while other contenders are measured
FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def image_of(png: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG to an image, uint8 [28, 28, 1]."""
    return tf.ensure_shape(tf.io.decode_png(png, channels=1), [28, 28, 1])


def one(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a serialized example to an image, uint8 [28, 28, 1], and a label, int32."""
    parsed = tf.io.parse_single_example(serialized, FEATURES)
    return image_of(parsed["image"]), tf.cast(parsed["label"], tf.int32)


def several(serialized: tf.Tensor, unrolled: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of serialized examples, with `tf.map_fn` unless `unrolled`.

    Returns:
      Images, uint8 [128, 28, 28, 1], and labels, int32 [128].
    """
    parsed = tf.io.parse_example(serialized, FEATURES)
    if unrolled:
        images = tf.stack([image_of(png) for png in tf.unstack(parsed["image"], BATCH)])
    else:
        signature = tf.TensorSpec([28, 28, 1], tf.uint8)
        images = tf.map_fn(image_of, parsed["image"], fn_output_signature=signature)
    return images, tf.cast(parsed["label"], tf.int32)


def dataset_of(paths: list[str], decode: str, ordered: bool, reads: str) -> tf.data.Dataset:
    """Returns an infinite dataset of batches (images, labels).

    Args:
      paths: paths of the TFRecord files.
      decode: "each", "batch" or "unrolled", as in the module's docstring.
      ordered: whether the order of the batches is deterministic.
      reads: "tuned" or "one".
    """
    at_a_time = AUTOTUNE if reads == "tuned" else None
    found = tf.data.TFRecordDataset(paths, num_parallel_reads=at_a_time, buffer_size=1 << 20)
    found = found.take(EXAMPLES[BATCH]).repeat()
    if decode == "each":
        found = found.map(one, num_parallel_calls=AUTOTUNE, deterministic=ordered)
        found = found.batch(BATCH, drop_remainder=True)
    else:
        found = found.batch(BATCH, drop_remainder=True)
        found = found.map(
            lambda serialized: several(serialized, decode == "unrolled"),
            num_parallel_calls=AUTOTUNE,
            deterministic=ordered,
        )
    return found.prefetch(READY)


def main() -> None:
    """Serves requests for batches through benchmarks/serve.py."""
    variant: dict[str, Any] = json.loads(sys.argv[2])
    paths = sorted(glob.glob(f"{sys.argv[1]}/mnist/*/mnist-train.tfrecord-*"))
    iterator = iter(dataset_of(paths, **variant))
    seen = {"examples": 0, "labels": 0}

    @tf.function(autograph=False)
    def batches(steps: tf.Tensor, iterator: Any) -> list[tf.Tensor]:
        def body(step: tf.Tensor, examples: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
            images, found = next(iterator)
            more = tf.reduce_sum(tf.cast(found, tf.int64))
            with tf.control_dependencies([images]):
                return [step + 1, examples + tf.size(found, tf.int64), labels + more]

        zero = tf.constant(0, tf.int64)
        return tf.while_loop(
            lambda step, *_: step < steps, body, [zero] * 3, parallel_iterations=1
        )[1:]

    def take(steps: int) -> None:
        examples, labels = batches(tf.constant(steps, tf.int64), iterator)
        seen["examples"] += int(examples)
        seen["labels"] += int(labels)

    take(1)
    serve(take, {"tensorflow": tf.__version__}, lambda: seen)


if __name__ == "__main__":
    main()
