"""Evaluation over views: the mean of a model's outputs over mirrored and shifted images."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.assembly.factories import build_views
from engine.config.flags import parse
from engine.config.schema import Config
from engine.core.evaluation import Evaluation
from engine.core.evaluation_step import evaluation_step
from engine.core.views import mean_over_views
from engine.models.base import ForwardContext
from engine.serving.module import ServingModule
from engine.tasks.classification import Classification
from engine.tasks.regression import Regression
from engine.tasks.task import Task
from engine.verify.fault_injection import FaultInjectingTask
from pipelines import SourceOptions, arrays, open_dataset, views_of
from pipelines.augmentation import views as registry
from pipelines.feeds.batch_layout import BatchLayout, BatchPlan
from pipelines.feeds.resident import InMemoryFeed
from tapeline import models
from tests.harness import NETWORKS, pictures, scaled, training

IMAGES, LABELS = pictures(29, seed=3)
TALL = IMAGES[:, :, :6]  # 8 x 6 pixels: the axes are not to be mixed up
SIX = "flip,shift:2"


def source_of(inputs, targets=None):
    """Returns a source of these arrays as training examples."""
    if targets is None:
        targets = np.zeros(len(tf.nest.flatten(inputs)[0]), np.int32)
    described = arrays(inputs=inputs, targets=targets)
    return open_dataset("mine", SourceOptions(cache_dir="unused"), lambda: described)


def expected_views(images, spec):
    """Returns pairs of weight and images, in NumPy, of the built-in names in `spec`."""
    found = [(1.0, images)]
    if "shift" in spec:
        pixels = int(spec.partition("shift:")[2].partition(",")[0])
        padded = np.pad(images, [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)], "reflect")
        height, width = images.shape[1:3]
        far = slice(2 * pixels, 2 * pixels + height), slice(2 * pixels, 2 * pixels + width)
        found = [(0.5, images)]
        found += [(0.25, padded[:, :height, :width]), (0.25, padded[:, far[0], far[1]])]
    if "flip" in spec:
        found = [(w / 2, x) for w, x in found] + [(w / 2, x[:, :, ::-1]) for w, x in found]
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("spec", ["flip", "shift:1", "shift:5", SIX, "shift:2,flip"])
def test_views_match_numpy(spec, dtype):
    images = TALL.astype(dtype)
    found = views_of(spec, source_of(images))
    expected = expected_views(images, spec)
    assert sum(weight for weight, _ in found) == 1 and len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.weight == other[0]
        seen = one.view(tf.constant(images))
        assert seen.dtype == dtype
        np.testing.assert_array_equal(seen, other[1])


def test_number_of_shift():
    assert len(views_of("shift", source_of(TALL))) == 3
    moved = views_of("shift", source_of(TALL))[1].view(tf.constant(TALL))
    np.testing.assert_array_equal(moved[:, 1:, 1:], TALL[:, :-1, :-1])


def test_no_views():
    model = tf.Module()
    assert views_of("", source_of(TALL)) == () and mean_over_views(model, ()) is model


def network(images):
    return models.Sequential("network", list(NETWORKS["switches"][0]()), images.shape[1:], 0)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
def test_mean_of_outputs(dtype):
    """The outputs are the weighted mean in float32, in any compute dtype."""
    model, context = network(TALL), ForwardContext(dtype=dtype)
    inputs = tf.constant(TALL, tf.float32) / 255
    averaged = mean_over_views(model, views_of(SIX, source_of(TALL)))
    found = tf.function(lambda x: averaged(x, context), autograph=False)(inputs)
    assert found.dtype == tf.float32
    expected = sum(
        weight * tf.cast(model(tf.constant(x), context), tf.float32).numpy()
        for weight, x in expected_views(inputs.numpy(), SIX)
    )
    bound = {tf.float32: 1e-6, tf.bfloat16: 2e-2, tf.float16: 2e-3}[dtype]
    np.testing.assert_allclose(found, expected, atol=bound)
    assert np.abs(found - model(inputs, context)).max() > 5 * bound


class Outputs(tf.Module):
    """A model that returns what a function makes of its inputs, and adds a penalty."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls, self.temperature = function, 0, 3.0

    def __call__(self, inputs, context):
        self.calls += 1
        context.penalties.append(tf.constant(2.0))
        return self.function(tf.cast(inputs, tf.float32))


def test_nests_and_penalties():
    """Each tensor of the outputs is averaged; a penalty of the weights counts once."""
    model = Outputs(lambda x: {"a": x[:, 0, 0, 0], "b": (tf.cast(x[:, 0], tf.float64),)})
    source, context = source_of(TALL), ForwardContext()
    averaged = mean_over_views(model, views_of("flip", source))
    found = averaged(tf.constant(TALL), context)
    both = (TALL.astype(np.float64) + TALL[:, :, ::-1]) / 2
    np.testing.assert_allclose(found["a"], both[:, 0, 0, 0])
    np.testing.assert_array_equal(found["b"][0], both[:, 0])
    assert found["b"][0].dtype == tf.float64
    assert len(context.penalties) == 1 and model.calls == 2
    assert averaged.temperature == 3.0 and not hasattr(averaged, "absent")
    half = mean_over_views(Outputs(lambda x: tf.cast(x, tf.float16)), views_of(SIX, source))
    assert half(tf.constant(TALL), context).dtype == tf.float32


def test_task_must_agree():
    """A task of the user's says that its outputs may be averaged; the built-in ones do."""
    source = source_of(TALL)
    config = parse(["--evaluation_views=flip"])

    class Own(Task):
        pass

    class Agrees(Task):
        averages_views = True

    with pytest.raises(ValueError, match="--evaluation_views=flip: the task Own does not say"):
        build_views(config, source, Own())
    assert len(build_views(config, source, Agrees())) == 2
    assert len(build_views(config, source, Classification())) == 2
    assert len(build_views(config, source, FaultInjectingTask(Classification()))) == 2  # of verify
    assert build_views(Config(), source, Own()) == ()


def test_exported(tmp_path):
    """A SavedModel computes the mean over views, with the variables of the model."""
    source = source_of(TALL)
    averaged = mean_over_views(network(TALL), views_of(SIX, source))
    serving = ServingModule(averaged, Regression(), source, tf.float32)
    assert len(serving.variables) == len(averaged.variables) > 2
    signatures = {"serving_default": serving.serve}
    tf.saved_model.save(serving, str(tmp_path), signatures=signatures)
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    found = loaded(images=tf.constant(TALL))["predictions"]
    expected = averaged(source.preprocess(tf.constant(TALL)), ForwardContext())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_integer_outputs():
    model = Outputs(lambda x: tf.cast(x, tf.int64))
    averaged = mean_over_views(model, views_of("flip", source_of(TALL)))
    with pytest.raises(ValueError, match="returns outputs of int64"):
        averaged(tf.constant(TALL), ForwardContext())


def scores(replicas, shards, batch, spec=SIX):
    """Returns the means of an evaluation of `IMAGES` over views, by the same initial weights."""
    run = training(IMAGES, LABELS, replicas=replicas, shards=shards)
    plan = BatchPlan(
        examples=len(IMAGES),
        global_batch_size=batch,
        layout=BatchLayout(replicas, shards=shards),
        seed=None,
    )
    feed = InMemoryFeed(IMAGES, LABELS, plan, run.strategy)
    model = mean_over_views(run.state.model, views_of(spec, source_of(IMAGES)))
    step = evaluation_step(model=model, task=run.task, preprocess=scaled)
    evaluation = Evaluation(run.strategy, feed, step, run.task)
    found = evaluation.run()
    assert evaluation.traces == 1 and found["examples"] == len(IMAGES)
    return found


def test_evaluation():
    """The loss is that of the mean logits, for any batch size, replicas, and a padded batch."""
    model = training(IMAGES, LABELS).state.model
    logits = sum(
        weight * model(tf.constant(x), ForwardContext()).numpy().astype(np.float64)
        for weight, x in expected_views(IMAGES.astype(np.float32) / 255, SIX)
    )
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(LABELS)), LABELS]
    for layout in ((1, 0, 29), (1, 0, 4), (2, 0, 8)):
        found = scores(*layout)
        np.testing.assert_allclose(found["loss"], losses.mean(), rtol=1e-5)
        assert found["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == LABELS))
    assert abs(scores(1, 0, 8, "")["loss"] - losses.mean()) > 1e-4


def test_shards_have_equal_bits():
    """With shards, an evaluation over views has the same bits on one and on two replicas."""
    assert scores(1, 4, 12) == scores(2, 4, 12)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("flop", "the views are shift, flip; did you mean 'flip'?"),
        ("flip,flip", "flip is listed twice"),
        ("flip:2", "flip takes no number; give flip"),
        ("shift:x", "'x' is not a number; give shift:1"),
        ("shift:", "'' is not a number"),
        ("shift:0", "must be 1 to 5 whole pixels, the image's shorter side being 6"),
        ("shift:6", "must be 1 to 5 whole pixels"),
        ("shift:1.5", "must be 1 to 5 whole pixels"),
        ("shift:nan", "must be 1 to 5 whole pixels"),
    ],
)
def test_refused(spec, said):
    with pytest.raises(ValueError) as caught:
        views_of(spec, source_of(TALL))
    assert said in str(caught.value) and str(caught.value).startswith("--evaluation_views=")


def test_refused_data():
    rows = np.zeros([9, 4], np.float32)
    with pytest.raises(ValueError, match=r"flip is of images, and the inputs of .* are none"):
        views_of("flip", source_of(rows))
    masks = np.zeros([29, 8, 6], np.int32)
    with pytest.raises(ValueError, match="shift moves the pixels of images, and the targets"):
        views_of("shift:1", source_of(TALL, masks))


@pytest.fixture
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_own_views(empty_registry):
    """A registered view counts half, of any inputs; it may take a number."""

    @registry.register_view
    def backwards(inputs):
        return {"a": inputs["a"][:, ::-1]}

    @registry.register_view("louder", default=2.0, maximum=4.0)
    def _(inputs, number):
        return {"a": inputs["a"] * number}

    assert registry.registered_views() == ("backwards", "louder")
    rows = np.arange(18, dtype=np.float32).reshape(9, 2)
    source = source_of({"a": rows})
    found = views_of("louder:3,backwards", source)
    assert [each.weight for each in found] == [0.25] * 4
    expected = (rows, rows[:, ::-1], 3 * rows, 3 * rows[:, ::-1])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.view({"a": tf.constant(rows)})["a"], other)
    assert views_of("louder", source)[1].view({"a": tf.constant(1.0)})["a"] == 2
    for spec in ("louder:5", "louder:0", "louder:inf", "louder:nan"):
        with pytest.raises(ValueError, match="must be a finite number above 0, at most 4"):
            views_of(spec, source)
    with pytest.raises(ValueError, match="backwards takes no number"):
        views_of("backwards:1", source)


def test_invalid_own_views(empty_registry):
    @registry.register_view
    def smaller(images):
        return images[:, 1:]

    (_, one) = views_of("smaller", source_of(TALL))
    with pytest.raises(ValueError, match="--evaluation_views=smaller: has to return inputs of the"):
        one.view(tf.constant(TALL))
    for name in ("smaller", "flip"):
        with pytest.raises(ValueError, match="is registered already"):
            registry.register_view(name)(smaller)
    with pytest.raises(ValueError, match="must be a Python identifier"):
        registry.register_view("a-b")(smaller)
