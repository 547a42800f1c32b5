import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.interpolate import BSpline

from pipelines.augmentation import warp
from pipelines.augmentation.warp import CONTROL_POINTS, NUMBERS

SHAPES = [(28, 28, 1), (9, 14, 3)]


def noise_images(rows, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape)).astype(np.uint8)


def uniform(*shape, seed=1):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def warped(images, strengths, numbers):
    rows = len(images)
    given = {
        name: np.broadcast_to(np.asarray(numbers[name], np.float32), (rows, NUMBERS[name]))
        for name in strengths
    }
    return warp.warp(tf.constant(images), strengths, given).numpy()


def reference(image, shift=(0, 0), degrees=0.0, scale=1.0, shear=0.0):
    """Returns SciPy's result of zoom, shear, rotation and shift in this order, in float64."""
    angle = np.radians(degrees)
    # (y, x), y down: counter-clockwise moves points right of the centre up.
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = rotation @ np.array([[1, 0], [shear, 1]]) @ np.diag([scale, scale])
    backward = np.linalg.inv(forward)
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - backward @ (centre + shift)
    channels = [
        ndimage.affine_transform(
            image[..., channel].astype(np.float64), backward, offset, order=1, mode="grid-constant"
        )
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


# Affine maps


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "strengths",
    [
        {"shift": 3.0},
        {"rotation": 180.0},
        {"zoom": 0.5},
        {"shear": 0.7},
        {"shift": 2.0, "zoom": 0.2},
        {"rotation": 25.0, "shear": 0.3},
        {"zoom": 0.9, "shear": 1.0},
        {"shift": 4.0, "rotation": 60.0, "zoom": 0.3, "shear": 0.4},
    ],
)
def test_affine_matches_scipy(strengths, shape):
    images = noise_images(12, shape)
    numbers = {name: uniform(12, NUMBERS[name], seed=len(name)) for name in strengths}
    result = warped(images, strengths, numbers)
    assert result.dtype == np.float32
    for row, image in enumerate(images):
        signed = {
            name: strength * (2 * numbers[name][row].astype(np.float64) - 1)
            for name, strength in strengths.items()
        }
        expected = reference(
            image,
            signed.get("shift", (0, 0)),
            float(signed.get("rotation", [0.0])[0]),
            1 + float(signed.get("zoom", [0.0])[0]),
            float(signed.get("shear", [0.0])[0]),
        )
        # Of 255: a position is off by 1e-5 pixels, and neighbours differ by up to 255.
        np.testing.assert_allclose(result[row], expected, atol=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_half_is_identity(shape):
    images = noise_images(4, shape)
    full = {"shift": 2.0, "rotation": 180.0, "zoom": 0.9, "shear": 1.0, "elastic": 2.0}
    for strengths in (full, *({name: value} for name, value in full.items())):
        result = warped(images, strengths, dict.fromkeys(strengths, 0.5))
        np.testing.assert_array_equal(result, images.astype(np.float32))


def test_shift_in_pixels():
    image = noise_images(1, (6, 7, 1))
    result = warped(image, {"shift": 4.0}, {"shift": [0.75, 0.25]})  # 2 down, 2 left
    np.testing.assert_array_equal(result[0, 2:, :-2], image[0, :-2, 2:])
    assert not result[0, :2].any() and not result[0, :, -2:].any()
    half = warped(image, {"shift": 1.0}, {"shift": [0.5, 0.75]})[0, :, :, 0]  # half a pixel right
    before = np.pad(image[0, :, :, 0].astype(np.float32), [(0, 0), (1, 0)])
    np.testing.assert_array_equal(half, (before[:, :-1] + before[:, 1:]) / 2)


def test_largest_shift():
    image = np.full((1, 5, 5, 1), 255, np.uint8)
    result = warped(image, {"shift": 4.999}, {"shift": 0.0})
    assert result[0, 0, 0, 0] > 0 and not result[0, 1:].any() and not result[0, :, 1:].any()


@pytest.mark.parametrize("shape", [(28, 28, 1), (27, 27, 3)])
def test_right_angles_match_numpy(shape):
    images = noise_images(3, shape)
    for quarters in range(-2, 2):
        result = warped(images, {"rotation": 180.0}, {"rotation": (quarters + 2) / 4})
        expected = np.rot90(images, quarters, axes=(1, 2))  # counter-clockwise too
        np.testing.assert_allclose(result, expected, atol=0.01)


@pytest.mark.parametrize("size", [27, 28])
def test_rotation_does_not_drift(size):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    blob = np.rint(255 * np.exp(-(x**2 + y**2) / 18)).astype(np.uint8)
    images = np.repeat(blob[np.newaxis, :, :, np.newaxis], 64, axis=0)
    turns = np.arange(64, dtype=np.float32)[:, np.newaxis] / 64
    result = warped(images, {"rotation": 180.0}, {"rotation": turns})[..., 0]
    mass = result.sum(axis=(1, 2))
    for axis in (y, x):
        np.testing.assert_allclose((result * axis).sum(axis=(1, 2)) / mass, 0, atol=1e-4)


def test_zoom_about_centre():
    y, x = np.mgrid[:28, :28] - 13.5
    disc = (255 * (x**2 + y**2 < 36)).astype(np.uint8)[np.newaxis, :, :, np.newaxis]
    area = [
        warped(disc, {"zoom": 0.5}, {"zoom": number}).sum() / disc.sum() for number in (0.0, 0.9)
    ]
    np.testing.assert_allclose(area, [0.5**2, 1.4**2], rtol=0.03)


def test_graph_same_bits():
    strengths = {"shift": 3.0, "rotation": 180.0, "zoom": 0.5, "shear": 0.7, "elastic": 2.0}
    images = tf.constant(noise_images(16, (11, 12, 1)))
    numbers = {name: tf.constant(uniform(16, NUMBERS[name])) for name in strengths}

    def warp_it(images, numbers):
        return warp.warp(images, strengths, numbers)

    unknown = [
        tf.TensorSpec([None, 11, 12, 1], tf.uint8),
        {name: tf.TensorSpec([None, NUMBERS[name]]) for name in strengths},
    ]
    eager = warp_it(images, numbers)
    for signature in (None, unknown):
        graph = tf.function(warp_it, input_signature=signature)
        np.testing.assert_array_equal(graph(images, numbers), eager)
        some = {name: u[3:8] for name, u in numbers.items()}
        np.testing.assert_array_equal(graph(images[3:8], some), eager[3:8])


# Elastic distortion


def test_displacement_range():
    shape = (64, 2 * CONTROL_POINTS * CONTROL_POINTS)
    corners = (uniform(*shape) < 0.5) * np.float32(1 - 2**-24)
    assert np.abs(warp.field(corners, 28, 28)).max() <= 1
    np.testing.assert_array_equal(warp.field(np.zeros(shape, np.float32), 28, 20), -1)


def test_field_matches_scipy_spline():
    numbers = uniform(16, 2 * CONTROL_POINTS * CONTROL_POINTS)
    field = warp.field(numbers, 28, 21).numpy()
    controls = 2 * numbers.astype(np.float64).reshape(16, 2, CONTROL_POINTS, CONTROL_POINTS) - 1
    knots = np.arange(-3, CONTROL_POINTS + 1)
    for size, axis in ((28, 2), (21, 3)):
        places = (np.arange(size) + 0.5) * warp.GRID_SPACINGS / size
        controls = BSpline(knots, controls, 3, axis=axis)(places)
    np.testing.assert_allclose(field, controls, atol=5e-4)  # the weights are rounded to 2**-14
    # With spacings of h pixels the slope is under 2 / h and the curvature under 4 / h**2.
    assert np.abs(np.diff(field, axis=2)).max() < 2 / 7
    assert np.abs(np.diff(field, 2, axis=2)).max() < 4 / 7**2
    # Uniform controls have a deviation of 0.58; the weights average it down.
    np.testing.assert_allclose(field.std(), 0.28, atol=0.02)


def test_field_is_exact():
    numbers = uniform(3, 2 * CONTROL_POINTS * CONTROL_POINTS)
    numbers[0, :4] = 1e-30, 2**-24, 0.3333333, 1 - 2**-24
    controls = (2 * numbers - 1).astype(np.float64) * 2**24
    whole = controls.astype(np.int64).astype(object).reshape(3, 2, CONTROL_POINTS, CONTROL_POINTS)
    rows, columns = ((warp.spline(n) * 2**14).astype(np.int64).astype(object) for n in (28, 11))
    exact = np.einsum("hi,rcij,wj->rchw", rows, whole, columns, optimize=True)
    expected = (exact.astype(np.float64) / 2**52).astype(np.float32)
    np.testing.assert_array_equal(warp.field(numbers, 28, 11), expected)


@pytest.mark.parametrize("size", [1, 5, 28, 500])
def test_spline_partition_of_unity(size):
    weights = warp.spline(size)
    assert weights.min() >= 0 and ((weights > 0).sum(axis=1) <= 4).all()
    np.testing.assert_array_equal(weights.sum(axis=1), 1)


def test_distortion_in_pixels():
    numbers = np.full([1, 2, CONTROL_POINTS * CONTROL_POINTS], 0.5, np.float32)
    numbers[:, 1] = 0.75  # everything is read from one pixel further right
    image = noise_images(1, (12, 12, 2))
    result = warped(image, {"elastic": 2.0}, {"elastic": numbers.reshape(1, -1)})
    np.testing.assert_array_equal(result[:, :, :-1], image[:, :, 1:])


@pytest.mark.parametrize("seed", range(3))
def test_distortion_never_folds(seed):
    # The determinant of the map's Jacobian stays positive, also for the most extreme fields.
    shape = (500, 2 * CONTROL_POINTS * CONTROL_POINTS)
    numbers = (uniform(*shape, seed=seed) < 0.5) * np.float32(1 - 2**-24)
    away = 0.48 * 7 * warp.field(numbers, 28, 28).numpy()
    dy, dx = np.gradient(away, axis=2), np.gradient(away, axis=3)
    assert ((1 + dy[:, 0]) * (1 + dx[:, 1]) - dy[:, 1] * dx[:, 0]).min() > 0


# Sampling


def test_sampling_within_range():
    images = np.full((2, 5, 6, 1), 255, np.uint8)
    places = np.linspace(-3, 9, 60, dtype=np.float32).reshape(2, 5, 6)
    places[0, 0, :2] = -1e30, 1e30
    result = warp.bilinear(images, tf.constant(places), tf.constant(places[:, ::-1])).numpy()
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 255


@pytest.mark.parametrize("shape", [*SHAPES, (5, 1, 2)])
def test_lines_have_the_bits_of_pixels(shape):
    """Positions that lie on lines and columns may be rounded across a pixel, one and not the next.

    The float32 positions of a shift by nearly a whole number of pixels do.
    """
    starts = [0, 0.5, 1 - 2.0**-22, 2.0**-22, -(2.0**-30), -7.3, 2.0**-22 - 3, 1e3, -1e3, 4.75]
    scales = [1, 0.6, 1.7]
    pairs = np.array([(start, scale) for start in starts for scale in scales])
    rows = len(pairs)

    def along(size, pairs):
        places = pairs[:, :1] + pairs[:, 1:] * np.arange(size)
        return np.clip(places.astype(np.float32), -1, None)

    y = along(shape[0], pairs)[:, :, None]
    x = along(shape[1], pairs[np.random.default_rng(0).permutation(rows)])[:, None, :]
    y, x = np.minimum(y, shape[0]), np.minimum(x, shape[1])
    images = tf.constant(noise_images(rows, shape))
    full = [tf.constant(np.broadcast_to(each, (rows, *shape[:2]))) for each in (y, x)]
    found = warp._by_lines(images, tf.constant(y), tf.constant(x))
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, warp._by_pixels(images, *full))


@pytest.mark.parametrize("names", [("shift",), ("shift", "zoom"), ("rotation",), ("elastic",)])
def test_lines_where_positions_allow(names, monkeypatch):
    called = []
    monkeypatch.setattr(warp, "_by_lines", lambda *given: called.append(given) or given[0])
    strengths = dict.fromkeys(names, 0.5)
    numbers = {name: tf.zeros([3, NUMBERS[name]]) for name in names}
    warp.warp(tf.zeros([3, 9, 14, 3], tf.uint8), strengths, numbers)
    assert bool(called) == ({"shift", "zoom"} >= set(names))
