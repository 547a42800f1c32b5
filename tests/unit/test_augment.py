import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from pipelines import Augmentation, parse_augmentation
from pipelines.augmentation import registry

SHAPE = (28, 28, 1)
WARPS = "shift:2,rotation:10,zoom:0.1,shear:0.1,elastic:1"
EVERYTHING = f"{WARPS},cutout:8,flip:both,mixup:0.2"
ALONE = ["shift", "rotation", "zoom", "shear", "elastic", "cutout", "flip", "flip:both", "mixup"]
PIXELS = "crop:3,flip:both,randaugment:1:20,color_jitter:0.6:0.6:0.6:0.2"
COLORED = [
    *("crop:3:zeros", "randaugment:1:30", "color_jitter", "cutmix"),
    f"{PIXELS},{WARPS},cutout,cutmix,mixup",
]
LARGEST = "shift:27.99,rotation:180,zoom:0.99,shear:1,elastic:7,cutout:27,flip:both,mixup:100"
CLASSES = 10


def batch(augment, rows, seed=0, shape=SHAPE):
    """Returns images, labels and random numbers for `rows` rows of the result."""
    rng, rows = np.random.default_rng(seed), rows + augment.mixes
    images = rng.integers(0, 256, (rows, *shape)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, rows).astype(np.int32)
    return images, labels, rng.random((rows, augment.numbers), dtype=np.float32)


def applied(augment, images, labels, numbers):
    return [np.asarray(part) for part in augment(images, labels, numbers, CLASSES)]


def compiled(augment, jit_compile, shape=SHAPE):
    signature = [
        tf.TensorSpec([None, *shape], tf.uint8),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, augment.numbers], tf.float32),
    ]
    function = functools.partial(augment, classes=CLASSES)
    return tf.function(
        lambda *arguments: function(*arguments), input_signature=signature, jit_compile=jit_compile
    )


# Option


@pytest.mark.parametrize("spec", ["", "  "])
def test_empty_option(spec):
    assert parse_augmentation(spec, SHAPE) is None


def test_names_and_strengths():
    augment = parse_augmentation(" shift:1.5, flip:vertical ,mixup:0.4", SHAPE)
    assert isinstance(augment, Augmentation) and augment.mixes
    assert augment.strengths == {"shift": 1.5, "flip": "vertical", "mixup": 0.4}
    assert augment.numbers == 2 + 1 + 1
    assert not parse_augmentation("shift", SHAPE).mixes


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (28, {"shift": 2.0, "elastic": 3.0, "cutout": 8}),
        (32, {"shift": 32 / 14, "elastic": 96 / 28, "cutout": 9}),
        (8, {"shift": 8 / 14, "elastic": 24 / 28, "cutout": 2}),
    ],
)
def test_defaults_scale_with_side(side, expected):
    """Defaults in pixels grow with the shorter side."""
    fixed = {"rotation": 10.0, "zoom": 0.1, "shear": 0.1, "mixup": 0.2, "flip": "horizontal"}
    spec = ",".join([*fixed, *expected])
    assert parse_augmentation(spec, (side, side + 9, 3)).strengths == pytest.approx(
        {**fixed, **expected}
    )


def test_list_order_is_irrelevant():
    names = EVERYTHING.split(",")
    one, other = (
        parse_augmentation(EVERYTHING, SHAPE),
        parse_augmentation(",".join(names[::-1]), SHAPE),
    )
    for left, right in zip(
        applied(one, *batch(one, 3)), applied(other, *batch(one, 3)), strict=True
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "rotatoin:10",
            r"--augment=rotatoin:10: the transforms are resized_crop, .*crop, flip,.*'rotation'\?$",
        ),
        (
            "blur",
            r"--augment=blur: the transforms are resized_crop, .*, cutout, (.*, )?mixup, cutmix$",
        ),
        ("shift,,flip", r"--augment=: the transforms are "),
        ("shift,flip,shift:3", r"--augment=shift:3: shift is listed twice$"),
        ("shift:far", r"--augment=shift:far: 'far' is not a number; give shift:2$"),
        ("zoom:", r"--augment=zoom:: '' is not a number; give zoom:0.1$"),
        (
            "flip:horizontl",
            r"flip:horizontl: .* horizontal, vertical, both, alternating; .* 'horizontal'\?$",
        ),
        ("flip:1", r"--augment=flip:1: flips are horizontal, vertical, both, alternating$"),
        ("shift:-1", r"--augment=shift:-1: must be above 0; to go without, leave shift out$"),
        ("elastic:0", r"--augment=elastic:0: must be above 0"),
        ("zoom:nan", r"--augment=zoom:nan: must be a finite number$"),
        ("mixup:inf", r"--augment=mixup:inf: must be a finite number$"),
        ("shift:28", r"--augment=shift:28: must be below 28 pixels, .* shorter side being 28$"),
        ("cutout:28", r"--augment=cutout:28: must be at most 27 pixels, .* side being 28$"),
        ("cutout:2.5", r"--augment=cutout:2.5: must be a whole number of pixels$"),
        ("elastic:7.1", r"--augment=elastic:7.1: must be at most 7 pixels, .* side being 28$"),
        ("rotation:181", r"--augment=rotation:181: must be at most 180 degrees$"),
        ("zoom:1", r"--augment=zoom:1: must be at most 0.99$"),
        ("shear:1.5", r"--augment=shear:1.5: must be at most 1$"),
        ("mixup:101", r"--augment=mixup:101: must be at most 100$"),
        ("cutmix:0", r"--augment=cutmix:0: must be above 0"),
        ("crop:28", r"--augment=crop:28: must be 1 to 27 pixels, the image's .* side being 28$"),
        ("crop:0", r"--augment=crop:0: must be 1 to 27 pixels"),
        ("crop:2.5", r"--augment=crop:2.5: '2.5' is not a whole number of pixels$"),
        ("crop:", r"--augment=crop:: give crop:PADDING:FILL, such as crop:4 or crop:4:zeros$"),
        ("crop:4:black", r"--augment=crop:4:black: .* is reflect or zeros$"),
        ("randaugment:far", r"randaugment:far: give randaugment:OPERATIONS:MAGNITUDE, such as"),
        ("randaugment:2:9:1", r"give randaugment:OPERATIONS:MAGNITUDE, such as randaugment:2:9$"),
        ("randaugment:9", r"--augment=randaugment:9: must be 1 to 8 operations on an image$"),
        ("randaugment:2:31", r"randaugment:2:31: the magnitude must be above 0 and at most 30$"),
        ("randaugment:2:nan", r"randaugment:2:nan: the magnitude must be above 0 and at most 30$"),
        ("color_jitter:a", r"color_jitter:a: give color_jitter:BRIGHTNESS:CONTRAST:SATURATION:HUE"),
        ("color_jitter:1:1:1:1:1", r"color_jitter:1:1:1:1:1: give color_jitter:BRIGHTNESS:"),
        ("color_jitter:-1", r"brightness, contrast and saturation must be 0 to 10$"),
        ("color_jitter:1:1:1:0.6", r"the hue must be 0 to 0.5 of the colour circle$"),
        ("color_jitter:0", r"changes nothing; to go without, leave color_jitter out$"),
    ],
)
def test_refuses_bad_option(spec, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_augmentation(spec, SHAPE)
    assert "\n" not in str(error.value)


def test_refuses_extreme_image_sizes():
    with pytest.raises(ValueError, match="--augment=cutout: must be at most 0 pixels"):
        parse_augmentation("cutout", (1, 5, 1))
    with pytest.raises(ValueError, match=r"--augment=zoom: images are 5000 x 20 .* at most 4000 a"):
        parse_augmentation("zoom", (5000, 20, 3))


# Reproducibility


@pytest.mark.parametrize("spec", [*ALONE, WARPS, EVERYTHING])
@pytest.mark.parametrize("in_graph", [False, True])
def test_row_independent_of_batch_size(spec, in_graph):
    """An augmented row is bitwise equal in a batch of any size."""
    augment = parse_augmentation(spec, SHAPE)
    function = compiled(augment, False) if in_graph else functools.partial(applied, augment)
    arguments = batch(augment, 128)
    whole = [np.asarray(part) for part in function(*arguments)]
    assert whole[0].shape == (128, *SHAPE) and whole[0].dtype == np.float32
    for first, rows in ((0, 128), (0, 5), (3, 5), (17, 1), (100, 28), (127, 1)):
        part = function(*(a[first : first + rows + augment.mixes] for a in arguments))
        for some, every in zip(part, whole, strict=True):
            np.testing.assert_array_equal(some, every[first : first + rows])


@pytest.mark.parametrize(
    ("spec", "shape"), [*((spec, (32, 32, 3)) for spec in COLORED), (COLORED[-1], (8, 8, 1))]
)
def test_row_independent_of_batch_size_colored(spec, shape):
    """The same of images of 3 channels, and of images of 8 x 8 pixels, in the graph."""
    augment = parse_augmentation(spec, shape)
    function = compiled(augment, False, shape)
    arguments = batch(augment, 64, shape=shape)
    whole = [np.asarray(part) for part in function(*arguments)]
    assert whole[0].shape == (64, *shape) and whole[0].dtype == np.float32
    assert whole[0].min() >= 0 and whole[0].max() <= 1
    for first, rows in ((3, 5), (17, 1), (40, 24)):
        part = function(*(a[first : first + rows + augment.mixes] for a in arguments))
        for some, every in zip(part, whole, strict=True):
            np.testing.assert_array_equal(some, every[first : first + rows])
    given = [tf.constant(a[: 7 + augment.mixes]) for a in arguments]
    known = tf.function(functools.partial(augment, classes=CLASSES))(*given)
    for some, every in zip(known, whole, strict=True):  # a graph of static shapes
        np.testing.assert_array_equal(some, every[:7])


@pytest.mark.parametrize("spec", ["crop,flip,randaugment:1:15", "color_jitter,cutmix,mixup"])
def test_xla_close(spec):
    """XLA gives the pixels of randaugment to the bit, and those of color_jitter to 1/64."""
    shape = (16, 16, 3)
    augment = parse_augmentation(spec, shape)
    arguments = batch(augment, 24, shape=shape)
    plain, fused = (compiled(augment, jit, shape)(*arguments) for jit in (False, True))
    atol = 1e-6 if "randaugment" in spec else 4 / 64 / 255
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


def test_static_shapes_same_bits():
    """Graphs with static and dynamic shapes give bitwise equal images."""
    augment = parse_augmentation(EVERYTHING, SHAPE)
    arguments = batch(augment, 64)
    whole = compiled(augment, False)(*arguments)
    for rows in (64, 5):
        known = tf.function(functools.partial(augment, classes=CLASSES))
        for some, every in zip(known(*(a[: rows + 1] for a in arguments)), whole, strict=True):
            np.testing.assert_array_equal(some, every[:rows])


def test_xla_rows_close():
    augment = parse_augmentation(EVERYTHING, SHAPE)
    arguments = batch(augment, 32)
    function = compiled(augment, True)
    whole = function(*arguments)
    for first, rows in ((0, 5), (17, 1)):
        part = function(*(a[first : first + rows + augment.mixes] for a in arguments))
        for some, every in zip(part, whole, strict=True):
            np.testing.assert_allclose(some, every[first : first + rows], atol=1e-6)
    for fused, plain in zip(whole, applied(augment, *arguments), strict=True):
        np.testing.assert_allclose(fused, plain, atol=1e-6)


def test_row_depends_on_own_inputs():
    """An augmented row depends only on the same row of the input, with mixup also on the next."""
    augment = parse_augmentation(EVERYTHING, SHAPE)
    images, labels, numbers = batch(augment, 6)
    before, targets = applied(augment, images, labels, numbers)
    images[3], labels[3], numbers[3] = 255 - images[3], (labels[3] + 1) % CLASSES, numbers[0]
    after, other_targets = applied(augment, images, labels, numbers)
    changed = [0, 1, 4, 5]  # neither row 3 nor row 2, which is mixed with it
    np.testing.assert_array_equal(after[changed], before[changed])
    np.testing.assert_array_equal(other_targets[changed], targets[changed])
    assert (after[2] != before[2]).any() and (after[3] != before[3]).any()


def test_independent_of_global_seed():
    augment = parse_augmentation(EVERYTHING, SHAPE)
    first = applied(augment, *batch(augment, 4))
    tf.random.set_seed(5)
    again = applied(parse_augmentation(EVERYTHING, SHAPE), *batch(augment, 4))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


# Values


@pytest.mark.parametrize("spec", [EVERYTHING, LARGEST])
@pytest.mark.parametrize(("shape", "jit_compile"), [(SHAPE, True), ((28, 40, 3), False)])
def test_values_within_unit_interval(spec, shape, jit_compile):
    augment = parse_augmentation(spec, shape)
    images, labels, numbers = batch(augment, 60, shape=shape)
    images[:20] = 255
    numbers[::3] = numbers[::3].round() * np.float32(1 - 2**-24)  # the extremes of their range
    result, targets = map(
        np.asarray, compiled(augment, jit_compile, shape)(images, labels, numbers)
    )
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
    assert np.isfinite(targets).all() and targets.min() >= 0 and targets.max() <= 1


@pytest.mark.parametrize("spec", ["cutout:5", "flip"])
@pytest.mark.parametrize("in_graph", [False, True])
def test_pixels_exact_without_warp(spec, in_graph):
    """Without a warp, pixels are only divided by 255 and labels are unchanged."""

    def divided(images):
        return tf.cast(images, tf.float32) / 255

    augment = parse_augmentation(spec, SHAPE)
    images, labels, numbers = batch(augment, 2)
    images[:] = np.arange(784).reshape(SHAPE) % 256
    numbers[:] = 0  # no flip; a cutout at the corner
    # In a graph, also that of the model, TensorFlow multiplies by 1 / 255: the last bit differs.
    function = compiled(augment, False) if in_graph else functools.partial(applied, augment)
    expected = (tf.function(divided) if in_graph else divided)(tf.constant(images)).numpy()
    np.testing.assert_allclose(expected, images / 255, rtol=1.2e-7)
    if spec == "cutout:5":
        expected[:, :3, :3] = 0
    result, targets = function(images, labels, numbers)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(targets, labels)
    assert np.asarray(targets).dtype == np.int32


def test_half_numbers_are_identity():
    augment = parse_augmentation(WARPS, SHAPE)
    images, labels, numbers = batch(augment, 3)
    result, _ = applied(augment, images, labels, np.full_like(numbers, 0.5))
    np.testing.assert_array_equal(result, images.astype(np.float32) / np.float32(255))


# Flip, cutout, mixup


@pytest.mark.parametrize(
    ("spec", "numbers", "axes"),
    [
        ("flip", [0.49], ()),
        ("flip", [0.5], (1,)),
        ("flip:vertical", [0.9], (0,)),
        ("flip:both", [0.9, 0.1], (1,)),
        ("flip:both", [0.1, 0.9], (0,)),
        ("flip:both", [0.5, 0.5], (0, 1)),
    ],
)
def test_flip_threshold(spec, numbers, axes):
    """An image is flipped if its number is at least 0.5."""
    augment = parse_augmentation(spec, (5, 4, 3))
    images, labels, _ = batch(augment, 1, shape=(5, 4, 3))
    result, _ = applied(augment, images, labels, np.array([numbers], np.float32))
    np.testing.assert_array_equal(result[0], np.flip(images[0], axes) / np.float32(255))


def test_flip_before_warp():
    augment = parse_augmentation("shift:4,flip", SHAPE)
    images, labels, _ = batch(augment, 1)
    result, _ = applied(augment, images, labels, np.array([[0.5, 0.5, 0.75]], np.float32))
    np.testing.assert_array_equal(result[0, :, 2:], images[0, :, :1:-1] / np.float32(255))


@pytest.mark.parametrize("side", [1, 4, 7, 10])
def test_cutout_square(side):
    """A cutout is a square that may overhang the border."""
    height, width = 12, 15
    augment = parse_augmentation(f"cutout:{side}", (height, width, 2))
    y, x = np.mgrid[:height, :width]
    numbers = np.stack([(y.ravel() + 0.5) / height, (x.ravel() + 0.5) / width], axis=1)
    images = np.full((height * width, height, width, 2), 255, np.uint8)
    labels = np.zeros(height * width, np.int32)
    result, _ = applied(augment, images, labels, numbers.astype(np.float32))
    assert set(np.unique(result)) <= {0, 1}
    for row, (i, j) in enumerate(zip(y.ravel(), x.ravel(), strict=True)):
        expected = np.ones((height, width, 2))
        top, left = i - side // 2, j - side // 2
        expected[max(top, 0) : top + side, max(left, 0) : left + side] = 0
        np.testing.assert_array_equal(result[row], expected)
        if 0 <= top <= height - side and 0 <= left <= width - side:
            assert (result[row] == 0).sum() == 2 * side * side


def test_mixup_weighted_mean():
    augment = parse_augmentation("mixup:0.4", SHAPE)
    images, labels, numbers = batch(augment, 40)
    result, targets = applied(augment, images, labels, numbers)
    assert result.shape == (40, *SHAPE) and targets.shape == (40, CLASSES)
    assert targets.dtype == np.float32
    own = stats.beta.ppf((1 + numbers[:-1, 0].astype(np.float64)) / 2, 0.4, 0.4)
    assert own.min() >= 0.5
    pixels, one_hot = images / 255, np.eye(CLASSES)[labels]
    weight = own[:, np.newaxis]
    expected = weight * one_hot[:-1] + (1 - weight) * one_hot[1:]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    weight = own[:, np.newaxis, np.newaxis, np.newaxis]
    np.testing.assert_allclose(result, weight * pixels[:-1] + (1 - weight) * pixels[1:], atol=1e-6)


def test_mixup_after_other_transforms():
    mixed, plain = (
        parse_augmentation(EVERYTHING, SHAPE),
        parse_augmentation(f"{WARPS},cutout:8,flip:both", SHAPE),
    )
    images, labels, numbers = batch(mixed, 8)
    result, targets = applied(mixed, images, labels, numbers)
    parts, _ = applied(plain, images, labels, numbers[:, :-1])  # mixup's number is the last
    own = stats.beta.ppf((1 + numbers[:-1, -1:].astype(np.float64)) / 2, 0.2, 0.2)
    one_hot = np.eye(CLASSES)[labels]
    np.testing.assert_allclose(targets, own * one_hot[:-1] + (1 - own) * one_hot[1:], atol=1e-6)
    own = own[:, :, np.newaxis, np.newaxis]
    np.testing.assert_allclose(result, own * parts[:-1] + (1 - own) * parts[1:], atol=1e-6)


# Inputs and targets together


@pytest.fixture
def pair(monkeypatch):
    """Registers transforms of pairs for one test; returns `mirror`, one of them."""
    monkeypatch.setattr(registry, "pair_transforms", {})

    @registry.register_pair
    def mirror(inputs, targets, numbers):
        mirrored = numbers[:, :, tf.newaxis, tf.newaxis] >= 0.5
        return [tf.where(mirrored, x[:, :, ::-1], x) for x in (inputs, targets)]

    @registry.register_pair(numbers=2, default=3.0, maximum=5.0)
    def add(inputs, targets, numbers, strength):
        return (
            tf.nest.map_structure(lambda x: x + tf.cast(strength, x.dtype), inputs),
            targets,
        )

    @registry.register_pair("grow")
    def grows(inputs, targets, numbers):
        return tf.concat([inputs, inputs], 1), targets

    return mirror


def test_pairs_keep_together(pair):
    """A mask is mirrored if its image is; images are scaled after that."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 4, 5, 1), np.uint8)
    found = parse_augmentation("mirror,cutout:1", (4, 5, 1))
    assert found.numbers == 3
    numbers = random.random((6, 3)).astype(np.float32)
    inputs, targets = found(images, images, tf.constant(numbers), 0)
    mirrored = numbers[:, 0] >= 0.5
    assert 0 < mirrored.sum() < 6
    expected = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    assert np.array_equal(targets, expected)
    kept = inputs.numpy() > 0
    assert np.allclose(inputs.numpy()[kept], (expected / 255.0)[kept])


def test_pairs_of_nests(pair):
    from pipelines.preprocessing import Preprocessing, Scale

    found = parse_augmentation("add:2", None)
    preprocess = Preprocessing({"b": Scale("unit")})
    inputs = {"a": tf.constant([[1], [2]], tf.int64), "b": tf.constant([[1], [2]], tf.uint8)}
    result, targets = found(inputs, (tf.constant([5, 6]),), tf.zeros([2, 2]), 0, preprocess)
    assert result["a"].numpy().tolist() == [[3], [4]] and targets[0].numpy().tolist() == [5, 6]
    assert np.allclose(result["b"], np.array([[3], [4]]) / 255.0)


def test_refuses_pairs(pair):
    with pytest.raises(ValueError, match="flip is of images, and the inputs are no images"):
        parse_augmentation("add,flip", None)
    with pytest.raises(ValueError, match="add:9: must be at most 5"):
        parse_augmentation("add:9", None)
    with pytest.raises(ValueError, match=r"--augment=grow: has to return inputs and targets"):
        found = parse_augmentation("grow", None)
        found(tf.zeros([2, 3]), tf.zeros([2]), tf.zeros([2, 1]), 0)
    with pytest.raises(ValueError, match="registered already"):
        registry.register_pair("mirror")(pair)


@pytest.mark.parametrize("of_pairs", [True, False])
def test_static_shapes_after_python(monkeypatch, of_pairs):
    """What Python returns in the graph has the static shapes of what it was given, and is checked.

    Networks and `flops_of_step` take the number of rows from the graph.
    """
    monkeypatch.setattr(registry, "pair_transforms", {})
    monkeypatch.setattr(registry, "image_transforms", {})

    def python(images, *numbers):
        more = 1 if numbers[-1] == 2.0 else 0
        return tf.py_function(lambda x: tf.pad(x, [[0, more]] + [[0, 0]] * 3), [images], tf.float32)

    if of_pairs:
        registry.register_pair("python")(lambda x, y, u, s: (python(x, u, s), y))
    else:
        registry.register("python", numbers=1, default=1.0, maximum=2.0)(python)

    def augment(spec):
        found = parse_augmentation(spec, (4, 4, 1))
        return tf.function(lambda x, u: found(x, tf.zeros([3]), u, 0)[0], autograph=False)

    images, numbers = tf.random.stateless_uniform([3, 4, 4, 1], [1, 2]), tf.zeros([3, 1])
    function = augment("python").get_concrete_function(images, numbers)
    assert function.output_shapes == images.shape
    np.testing.assert_array_equal(function(images, numbers), images)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible"):
        augment("python:2")(images, numbers)


def test_refuses_images_of_another_shape(monkeypatch):
    monkeypatch.setattr(registry, "image_transforms", {})

    @registry.register("grow", numbers=1, default=1.0, maximum=1.0)
    def grow(images, numbers, strength):
        return tf.tile(images, [1, 2, 1, 1])

    found = parse_augmentation("grow", (4, 4, 1))
    with pytest.raises(ValueError, match=r"--augment=grow: has to return images of the shapes"):
        found(tf.zeros([2, 4, 4, 1]), tf.zeros([2]), tf.zeros([2, 1]), 0)


def test_strength_of_a_pair_that_takes_none(pair):
    assert parse_augmentation("mirror", None).strengths == {"mirror": 1.0}
    with pytest.raises(ValueError, match=r"--augment=mirror:0\.2: mirror takes no strength"):
        parse_augmentation("mirror:0.2", None)
