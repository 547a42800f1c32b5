"""Forms of examples whose rows a GPU can gather from its own memory.

TensorFlow has no kernel that gathers integers of 8 or 16 bits on a GPU, so that the CPU would
gather them in every step; and it keeps 32-bit integers in the memory of the host, from where a step
would copy all of them. So where there is a GPU, feeds hold integers as int64: small ones several at
a time, others one by one. The rows of a batch are converted back where they are gathered.
"""

from __future__ import annotations

import tensorflow as tf

_SMALL = (tf.uint8, tf.int8, tf.uint16, tf.int16)  # of which several are held in one int64
_WIDENED = (tf.int32, tf.uint32)
_BYTES = 8  # size of int64


def needed() -> bool:
    """Returns whether TensorFlow uses a GPU, so that feeds should hold integers as int64."""
    return bool(tf.config.list_logical_devices("GPU"))


def gatherable(rows: tf.Tensor) -> tf.Tensor:
    """Returns examples, [n, ...], in the form that a GPU can gather.

    Integers of 8 and 16 bits are returned as int64 [n, words], padded with zeros; of 32 bits, as
    int64 of the same values and shape; uint64, as int64 with the same bits. Others are unchanged.
    """
    if rows.dtype in _SMALL:
        size = rows.shape[1:].num_elements()
        flat = tf.reshape(rows, [-1, size])
        in_word = _BYTES // rows.dtype.size
        padded = tf.pad(flat, [[0, 0], [0, -size % in_word]])
        words = padded.shape[1] // in_word
        return tf.bitcast(tf.reshape(padded, [-1, words, in_word]), tf.int64)
    if rows.dtype in _WIDENED:
        return tf.cast(rows, tf.int64)
    return tf.bitcast(rows, tf.int64) if rows.dtype == tf.uint64 else rows


def restored(rows: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns examples, [n, ...], from the result of `gatherable`; `spec` is that of one example.

    Called in the graph. Rows that are in the dtype and shape of `spec` are returned unchanged.
    """
    if spec.dtype in _SMALL and rows.dtype == tf.int64:
        size, count = spec.shape.num_elements(), rows.shape[0]
        in_word = _BYTES // spec.dtype.size
        flat = tf.reshape(tf.bitcast(rows, spec.dtype), [count, rows.shape[1] * in_word])
        return tf.reshape(flat[:, :size], [count, *spec.shape])
    if spec.dtype in _WIDENED:
        return rows if rows.dtype == spec.dtype else tf.cast(rows, spec.dtype)
    return tf.bitcast(rows, tf.uint64) if spec.dtype == tf.uint64 != rows.dtype else rows
