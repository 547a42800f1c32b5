"""Built-in networks of families: numbers of parameters, arguments, initial values, errors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.config import arguments, flags
from engine.models.layers.composite import with_nested
from tapeline import models
from tests.choices import seldom

IMAGES, SMALL, CLASSES = (224, 224, 3), (32, 32, 3), (1000,)


def built(name, input_shape, output_shape, dtype=tf.float32, **values):
    return models.build(
        name,
        input_shape=input_shape,
        output_shape=output_shape,
        seed=0,
        arguments=values,
        input_dtype=dtype,
    )


def language_model(context=8, vocabulary=13, **values):
    return built("transformer", (context,), (context, vocabulary), tf.int32, **values)


def elements(variables) -> int:
    return sum(variable.shape.num_elements() for variable in variables)


@pytest.mark.parametrize(
    ("depth", "input_shape", "output_shape", "parameters"),
    [
        (18, IMAGES, CLASSES, 11_689_512),
        (50, IMAGES, CLASSES, 25_557_032),
        seldom(34, IMAGES, CLASSES, 21_797_672),
        seldom(101, IMAGES, CLASSES, 44_549_160),
        # Convolutions without biases 268,336, batch norms 2 x 688, the last layer 650; shortcuts
        # have none.
        (20, SMALL, (10,), 269_722),
        seldom(56, SMALL, (10,), 853_018),
        seldom(110, SMALL, (10,), 1_727_962),
    ],
)
def test_resnet_parameters(depth, input_shape, output_shape, parameters):
    """The trainable parameters, with the scales and offsets of batch norms, are as published."""
    with tf.Graph().as_default():  # which allocates no variable
        model = built("resnet", input_shape, output_shape, depth=depth)
    assert elements(model.trainable_variables) == parameters


@pytest.mark.parametrize(
    ("size", "parameters"), [("Ti", 5_717_416), seldom("S", 22_050_664), seldom("B", 86_567_656)]
)
def test_vit_parameters(size, parameters):
    with tf.Graph().as_default():
        model = built("vit", IMAGES, CLASSES, size=size, patch=16)
    assert elements(model.trainable_variables) == elements(model.variables) == parameters


def test_gpt_2_parameters():
    with tf.Graph().as_default():
        model = language_model(1024, 50_257, layers=12, heads=12, width=768)
    assert elements(model.trainable_variables) == elements(model.variables) == 124_439_808


def test_transformer_arguments():
    """Rotary positions have no table; an output layer that is not tied has a kernel of its own."""
    values = {"layers": 1, "heads": 2, "width": 8}
    count = elements(language_model(**values).trainable_variables)
    rotary = language_model(**values, positions="rotary")
    assert elements(rotary.trainable_variables) == count - 8 * 8
    untied = language_model(**values, tied=False)
    assert elements(untied.trainable_variables) == count + 8 * 13
    without = language_model(**values, bias=False)
    assert elements(without.trainable_variables) == count - (4 * 8 + 32 + 8) - 3 * 8
    dropped = language_model(**values, dropout=0.5)
    ids = tf.zeros([2, 8], tf.int32)
    context = models.ForwardContext(training=True, noise=models.StatelessRNG(0, tf.constant(0)))
    assert np.any(dropped(ids, context) != dropped(ids))


SMALL_TRANSFORMER = {"layers": 1, "heads": 2, "width": 8, "rotary": True}


@pytest.mark.parametrize(
    ("name", "input_shape", "output_shape", "values"),
    [
        ("transformer", (4,), (4, 5), SMALL_TRANSFORMER),
        seldom("resnet", (8, 8, 1), (5,), {"depth": 20}),
        seldom("vit", (8, 8, 1), (5,), {"patch": 4}),
    ],
)
def test_saved_model(name, input_shape, output_shape, values, tmp_path):
    """TensorFlow can save the attributes of all layers, as an export does."""
    dtype = tf.int32 if name == "transformer" else tf.float32
    tf.saved_model.save(built(name, input_shape, output_shape, dtype, **values), tmp_path)
    assert (tmp_path / "saved_model.pb").exists()


def flattened(model):
    return [each for layer in model.layers for each in with_nested(layer)]


def test_first_values_of_resnet():
    """Kernels are He-normal by their fan out, and with `zero_scale` a block is its shortcut."""
    model = built("resnet", (32, 32, 3), (10,), depth=18)
    convolutions = [x for x in flattened(model) if isinstance(x, models.Convolution)]
    for each in convolutions[-6:]:
        expected = (2 / (each.size**2 * each.filters)) ** 0.5
        np.testing.assert_allclose(each.kernel.numpy().std(), expected, rtol=0.02)
    norms = [x for x in flattened(model) if isinstance(x, models.BatchNorm)]
    assert all(x.scale.numpy().all() for x in norms)
    model = built("resnet", (8, 8, 3), (10,), depth=20, zero_scale=True)
    block = next(x for x in flattened(model) if isinstance(x, models.Residual))
    x = tf.random.stateless_normal([2, 8, 8, 16], [0, 0])
    np.testing.assert_array_equal(block(x, models.ForwardContext()), x)


def test_first_values_of_transformer():
    """Kernels that are added to their inputs start smaller, by the root of their number."""
    model = language_model(layers=8, width=64)
    assert model.layers[0].table.numpy().std() == pytest.approx(0.02, rel=0.05)
    block = model.layers[3]
    for layer, stddev in (
        (block.attention[1].query, 0.02),
        (block.attention[1].output, 0.005),
        (block.mlp[1], 0.02),
        (block.mlp[2], 0.005),
    ):
        assert layer.kernel.numpy().std() == pytest.approx(stddev, rel=0.03)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("resnet", {"depth": 21}, "one of the depths 18, 20, 32, 34, 44, 50, 56, 101, 110"),
        ("vit", {"patch": 3}, "--model.patch=3: images of 8x8 cannot be divided"),
        ("vit", {"patch": 0}, "--model.patch=0: images of 8x8 cannot be divided"),
        ("vit", {"dropout": 1.0}, "the rate of a dropout must be in"),
        ("transformer", {}, r"takes sequences of ids, integers \[tokens\], got float32"),
    ],
)
def test_refused_on_images(name, values, words):
    with pytest.raises(ValueError, match=words):
        built(name, (8, 8, 1), (3,), **values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"heads": 3, "width": 8}, "--model.heads=3: --model.width=8 is divided by the heads"),
        ({"layers": 0}, "--model.layers=0: give an integer of at least 1"),
        ({"positions": "rotary", "heads": 8, "width": 8}, "rotates pairs of units"),
    ],
)
def test_refused_on_ids(values, words):
    with pytest.raises(ValueError, match=words):
        language_model(**values)


def test_refused_outputs():
    with pytest.raises(ValueError, match="predicts an id at each of 8 positions"):
        built("transformer", (8,), (3,), tf.int32)
    with pytest.raises(ValueError, match="has a vector of outputs"):
        built("resnet", (8, 8, 1), (8, 8, 3))


def test_arguments_are_flags():
    """The arguments are typed flags with help, kept in config.flags."""
    config = flags.parse(["--model=resnet", "--model.depth=50", "--model.zero_scale"])
    assert config.arguments == {"model.depth": 50, "model.zero_scale": True}
    assert "--model.depth=50" in flags.flagfile(config)
    assert flags.parse(["--model=vit"]).arguments["model.size"] == "Ti"
    with pytest.raises(ValueError, match="choose one of Ti, S, B"):
        flags.parse(["--model=vit", "--model.size=L"])
    for name in ("resnet", "airbench", "vit", "transformer"):
        assert all(
            each.help[0].islower() or "Ti" in each.help
            for each in arguments.arguments("model", name)
        )


@pytest.mark.parametrize(
    ("name", "input_shape", "output_shape", "dtype", "values"),
    [
        ("transformer", (8,), (8, 13), tf.int32, {"layers": 1, "heads": 2, "width": 8}),
        seldom("vit", (8, 8, 3), (5,), tf.float32, {"patch": 4, "dropout": 0.1}),
        ("resnet", (8, 8, 3), (5,), tf.float32, {"depth": 20}),
        seldom("airbench", (8, 8, 3), (5,), tf.float32, {"widths": (4, 4)}),
    ],
)
def test_saved_and_loaded(name, input_shape, output_shape, dtype, values, tmp_path):
    """Each network can be exported: no layer has an attribute that TensorFlow cannot save."""
    model = built(name, input_shape, output_shape, dtype, **values)
    signature = [tf.TensorSpec([None, *input_shape], dtype)]
    module = tf.Module()
    module.model = model
    module.serve = tf.function(
        lambda x: model(x, models.ForwardContext()), input_signature=signature, autograph=False
    )
    x = tf.ones([2, *input_shape], dtype)
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_array_equal(loaded.serve(x), module.serve(x))
