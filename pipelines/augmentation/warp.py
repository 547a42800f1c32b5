"""Geometric augmentation: shift, rotation, zoom, shear and elastic distortion in one resampling.

An output row is bitwise identical in a batch of any size. Matrix products and Grappler reorder sums
depending on shapes. So wherever three or more terms are summed per pixel, the terms have so few
bits that the sum is exact in their dtype, mostly float64, in any order. All other operations are
elementwise, each with a single rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from pipelines.augmentation import lookup

GRID_SPACINGS = 4  # spacings of the elastic grid along each axis of the image
CONTROL_POINTS = GRID_SPACINGS + 3  # a cubic spline over n spacings has n + 3 control points
MAX_SIDE = 4000  # largest side in pixels for which the sums are exact
_ONE = float(1 << 28)  # coefficients of the affine map are multiples of 1 / _ONE
_WEIGHT = float(1 << 14)  # spline weights are multiples of 1 / _WEIGHT

# Number of uniform random numbers that each transform needs per image.
NUMBERS = {"shift": 2, "rotation": 1, "zoom": 1, "shear": 1, "elastic": 2 * CONTROL_POINTS**2}


def warp(
    images: tf.Tensor, strengths: Mapping[str, float], numbers: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Zooms, shears, rotates, shifts and then distorts images, all about the centre.

    With u a uniform random number and s(u) = strength * (2 u - 1), so that u = 1/2 changes nothing:

      shift: s(u) pixels down, then s(u) pixels to the right, fractions included.
      rotation: by s(u) degrees, counter-clockwise.
      zoom: by a factor of 1 + s(u).
      shear: each pixel moves right by s(u) times its distance below the centre.
      elastic: each pixel is sampled up to `strength` pixels away along each axis; see `field`.

    Args:
      images: uint8 [rows, H, W, C], with H and W at most MAX_SIDE.
      strengths: strength of each transform to apply, by name.
      numbers: random numbers of each of these transforms, by name: float32 [rows, NUMBERS[name]] in
        [0, 1).

    Returns:
      The images, float32 [rows, H, W, C] in 0..255; zero where they sample outside of the input.
    """
    _, height, width, _ = images.shape
    return bilinear(images, *_sample_positions(height, width, strengths, numbers))


def _sample_positions(
    height: int, width: int, strengths: Mapping[str, float], numbers: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (y, x), the positions in the input image that the output pixels sample, in pixels.

    Both are float32 and broadcast to [rows, height, width]; see `bilinear`.
    """
    # One scalar per image, float64 [rows, 1, 1], in units of _ONE until applied to pixels.
    affine = [name for name in strengths if name != "elastic"]
    uniform = {
        name: tf.cast(numbers[name], tf.float64)[..., tf.newaxis, tf.newaxis] for name in affine
    }
    amounts = {name: strengths[name] * (2 * u - 1) for name, u in uniform.items()}
    zero, one = tf.zeros([], tf.float64), tf.constant(_ONE, tf.float64)
    # The inverse of (rotation after shear after zoom): [[yy, yx], [xy, xx]].
    yy, yx, xy, xx = one, zero, zero, one
    if "rotation" in amounts:
        angle = uniform["rotation"][:, 0]
        angles = np.radians(strengths["rotation"]) * (2 * lookup.uniform_grid() - 1)
        # Interpolated, these are accurate to 3e-7 even over the full range of angles.
        cos, sin = (_ONE * lookup.interpolate(f(angles), angle) for f in (np.cos, np.sin))
        yy, yx, xy, xx = cos, sin, -sin, cos
    if "shear" in amounts:
        shear = amounts["shear"][:, 0]
        xy, xx = xy - shear * yy, xx - shear * yx
    if "zoom" in amounts:
        scale = 1 + amounts["zoom"][:, 0]
        yy, yx, xy, xx = yy / scale, yx / scale, xy / scale, xx / scale
    down, right = (amounts["shift"][:, i] if "shift" in amounts else zero for i in (0, 1))
    half_height, half_width = (height - 1) / 2, (width - 1) / 2
    start_y = _ONE * half_height - yy * down - yx * right
    start_x = _ONE * half_width - xy * down - xx * right

    # Positions are below 2**22 pixels and multiples of 2**-29, so they fit in float64.
    y = (np.arange(height) - half_height)[:, np.newaxis] / _ONE
    x = (np.arange(width) - half_width)[np.newaxis, :] / _ONE
    origin_y = tf.round(yy) * y + tf.round(start_y) / _ONE
    origin_x = tf.round(xx) * x + tf.round(start_x) / _ONE
    if "rotation" in amounts:
        origin_y += tf.round(yx) * x
    if "rotation" in amounts or "shear" in amounts:
        origin_x += tf.round(xy) * y
    origin_y, origin_x = tf.cast(origin_y, tf.float32), tf.cast(origin_x, tf.float32)

    if "elastic" in strengths:
        offset = strengths["elastic"] * field(numbers["elastic"], height, width)
        origin_y, origin_x = origin_y + offset[:, 0], origin_x + offset[:, 1]
    return origin_y, origin_x


def field(numbers: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Returns a smooth random displacement field (Simard et al. 2003).

    Uniform displacements in -1..1 on a coarse grid are interpolated by cubic B-splines (Rueckert et
    al. 1999), which are close to the Gaussian blur of Simard et al. (sigma 4 for 28 pixels).
    The root mean square is 0.28. If the field is scaled by less than 0.48 grid spacings (3.4 pixels
    in an image of 28), no image folds over itself (Choi and Lee 2000).

    Maps random numbers, float32 [rows, 2 * CONTROL_POINTS**2] in [0, 1), to displacements along y
    and along x, float32 [rows, 2, height, width] in -1..1.
    """
    # 2 u - 1 is a multiple of 2**-24 and each weight a multiple of 2**-14. No sum exceeds 1, so
    # sums of the products are exact in float64.
    controls = tf.reshape(2 * numbers - 1, [-1, 2, CONTROL_POINTS, CONTROL_POINTS])
    rows, columns = spline(height), spline(width)
    return tf.cast(rows @ tf.cast(controls, tf.float64) @ columns.T, tf.float32)


def spline(size: int) -> np.ndarray:
    """Returns the cubic B-spline weights of the control points along an axis of `size` pixels.

    Row i, of float64 [size, CONTROL_POINTS], has the weights at the centre of pixel i.
    """
    position = (np.arange(size) + 0.5) * (GRID_SPACINGS / size)
    first = np.floor(position).astype(int)
    t = position - first
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    weights = np.rint(weights * (_WEIGHT / 6))
    weights[:, 1] += _WEIGHT - weights.sum(axis=1)
    matrix = np.zeros((size, CONTROL_POINTS))
    np.put_along_axis(matrix, first[:, np.newaxis] + np.arange(4), weights / _WEIGHT, axis=1)
    return matrix


def bilinear(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Samples images, uint8 [rows, H, W, C] and zero outside, with bilinear interpolation.

    The positions `y` and `x` are in pixels from the first pixel's centre, float32, and broadcast to
    [rows, H, W]. Returns float32 [rows, H, W, C]; at the centre of a pixel, exactly its value.
    """
    height, width = images.shape[1:3]
    # Clipped to the padding of zeros, each position has four neighbours.
    y, x = tf.clip_by_value(y, -1, height), tf.clip_by_value(x, -1, width)
    rows = images.shape[:1]
    if y.shape == [*rows, height, 1] and x.shape == [*rows, 1, width]:
        return _by_lines(images, y, x)
    return _by_pixels(images, y, x)


def _by_pixels(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns the result of `bilinear` for any positions from -1 to H and from -1 to W."""
    height, width, channels = images.shape[1:]
    # A pixel and its right neighbour are packed into one number, left + 256 * right, which is exact
    # in float32: gathering is most of the work, and this halves it.
    padded = tf.cast(_padded(images), tf.float32)
    stride = width + 3
    pixels = tf.reshape(padded, [-1, (height + 3) * stride, channels])
    pairs = pixels[:, :-1] + 256 * pixels[:, 1:]

    top, left = tf.floor(y), tf.floor(x)
    down, right = (y - top)[..., tf.newaxis], (x - left)[..., tf.newaxis]
    # In float32, exact at these sizes: TensorFlow computes int32 on the host, even with a GPU.
    index = (top * stride + (stride + 1)) + left
    index = tf.cast(tf.reshape(index, [-1, height * width]), tf.int32)

    def row(below: int) -> tf.Tensor:
        pair = tf.gather(pairs[:, below * stride :], index, batch_dims=1)
        pair = tf.reshape(pair, [-1, height, width, channels])
        second = tf.floor(pair * (1 / 256))
        first = pair - 256 * second
        return first + right * (second - first)

    upper, lower = row(0), row(1)
    return upper + down * (lower - upper)


def _by_lines(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns the result of `_by_pixels`, to the bit, for `y` [rows, H, 1] and `x` [rows, 1, W].

    So are those of a shift and a zoom. Whole columns are gathered, and interpolated for all lines
    of an image, and then whole lines: far fewer and longer pieces than pixels.
    """
    height, width, channels = images.shape[1:]
    tall, wide = height + 3, width + 3
    every = tf.range(tf.shape(images, tf.int64)[0])[:, tf.newaxis]
    top, left = tf.floor(y), tf.floor(x)
    down, right = y - top, x - left

    def two(pieces: tf.Tensor, first: tf.Tensor, count: int) -> list[tf.Tensor]:
        """Returns the pieces of each image at `first`, [rows, n], and those after them, float32."""
        at = tf.cast(first + 1, tf.int64) + every * count
        found = [tf.gather(pieces, tf.reshape(at + after, [-1])) for after in (0, 1)]
        return [tf.cast(each, tf.float32) for each in found]

    columns = tf.reshape(tf.transpose(_padded(images), [0, 2, 1, 3]), [-1, tall * channels])
    before, after = two(columns, left[:, 0], wide)
    columns = before + tf.reshape(right, [-1, 1]) * (after - before)
    columns = tf.reshape(columns, [-1, width, tall, channels])
    lines = tf.reshape(tf.transpose(columns, [0, 2, 1, 3]), [-1, width * channels])
    upper, lower = two(lines, top[:, :, 0], tall)
    lines = upper + tf.reshape(down, [-1, 1]) * (lower - upper)
    return tf.reshape(lines, [-1, height, width, channels])


def _padded(images: tf.Tensor) -> tf.Tensor:
    """Returns images with a pixel of zeros above and on the left, and two on the other sides."""
    return tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]])
