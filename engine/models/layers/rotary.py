"""Rotary position embedding (Su et al. 2021, "RoFormer")."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_BASE = 10_000.0  # of the angular frequencies, as in the paper


def rotated(x: tf.Tensor) -> tf.Tensor:
    """Rotates pairs of units by angles that are proportional to the position of their token.

    Unit i of the first half of a head's units and unit i of the second half are a pair, as in
    GPT-NeoX and LLaMA; pair i of n turns by 10,000^(-i / n) radians from a token to the next. The
    product of a rotated query and a rotated key depends on the distance of their tokens alone.

    Args:
      x: queries or keys, [rows, heads, tokens, units of a head], with an even number of units.

    Returns:
      The rotated units, of the same shape and dtype; they are computed in float32.
    """
    tokens, pairs = x.shape[-2], x.shape[-1] // 2
    angles = np.arange(tokens)[:, None] * _BASE ** (-np.arange(pairs) / pairs)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = tf.split(tf.cast(x, tf.float32), 2, -1)
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return tf.cast(tf.concat(turned, -1), x.dtype)
