import numpy as np
import pytest
import tensorflow as tf

import tapeline
from engine.models.properties import named_variables
from engine.models.seeding import seeded
from tapeline.models import ForwardContext, StatelessRNG

SPEC = tf.TensorSpec([3])


def training():
    return ForwardContext(training=True, noise=StatelessRNG(0, tf.constant(0, tf.int64)))


class Plain(tf.Module):
    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0, name="factor")

    def __call__(self, inputs):
        return inputs * self.factor


class InContext(Plain):
    def __call__(self, inputs, context):
        return inputs * self.factor * (3 if context.training else 1)


class InTraining(Plain):
    def __call__(self, inputs, training=False):
        return inputs * self.factor * (3 if training else 1)


class IsTraining(Plain):
    def __call__(self, inputs, is_training):
        return inputs * self.factor * (3 if is_training else 1)


class KeywordContext(Plain):
    def __call__(self, inputs, scale=1.0, *, context, **others):
        return inputs * scale * self.factor * (3 if context.training else 1)


def named_scope(method):
    """Decorates a method as the metaclass of Sonnet's modules does, without functools.wraps."""

    def decorated(self, *args, **kwargs):
        with self.name_scope:
            return method.__get__(self)(*args, **kwargs)

    return decorated


class Decorated(Plain):
    __call__ = named_scope(IsTraining.__call__)


@pytest.mark.parametrize(
    "make", [Plain, InContext, InTraining, IsTraining, KeywordContext, Decorated]
)
def test_called_by_signature(make):
    x = tf.ones([2, 3])
    for model in (tapeline.module(make), tapeline.module(make(), SPEC)):
        assert float(model(x)[0, 0]) == 2
        assert float(model(x, training())[0, 0]) == (2 if make is Plain else 6)
        assert list(named_variables(model)) == ["module/factor"]


class NormLike(tf.Module):
    """Like Sonnet's batch norm: creates variables in its first call, and assigns averages."""

    def __init__(self):
        super().__init__()
        self.scale = None

    def __call__(self, inputs, is_training, test_local_stats=False):
        if self.scale is None:
            self.scale = tf.Variable(tf.ones(inputs.shape[1:]), name="scale")
            self.mean = tf.Variable(tf.zeros(inputs.shape[1:]), trainable=False, name="mean")
        mean = self.mean
        if is_training:
            mean = tf.reduce_mean(inputs, 0)
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
        return (inputs - mean) * self.scale


class Lazy(tf.Module):
    def __init__(self, counted=False):
        super().__init__()
        self.kernel = None

    def __call__(self, inputs, is_training):
        if self.kernel is None:
            self.kernel = tf.Variable(tf.ones([inputs.shape[-1], 2]), name="kernel")
        return inputs @ self.kernel


def test_variables_of_first_call():
    model = tapeline.module(Lazy())
    assert not model.variables
    model.create_variables(SPEC)
    assert [variable.shape for variable in model.trainable_variables] == [[3, 2]]
    assert model.outputs == tf.TensorSpec([2])
    np.testing.assert_array_equal(model(tf.ones([4, 3])), tf.fill([4, 2], 3.0))


def test_outputs_are_float32():
    class Half(Plain):
        def __call__(self, inputs, context):
            x = tf.cast(inputs, context.dtype)
            return {"x": x, "class": tf.argmax(x, -1)}

    y = tapeline.module(Half(), SPEC)(tf.ones([2, 3]), ForwardContext(dtype=tf.bfloat16))
    assert y["x"].dtype == tf.float32 and y["class"].dtype == tf.int64


def test_nested_inputs():
    class Sum(Plain):
        def __call__(self, inputs):
            return (inputs["x"] + tf.cast(inputs["n"], tf.float32)[:, None]) * self.factor

    spec = {"x": SPEC, "n": tf.TensorSpec([], tf.int32)}
    model = tapeline.module(Sum(), spec)
    y = model({"x": tf.ones([2, 3]), "n": tf.constant([1, 2])})
    np.testing.assert_array_equal(y[:, 0], [4.0, 6.0])


def test_sonnet_if_there():
    """Modules of Sonnet, if it is installed: layers are adapted, its batch norm is refused."""
    try:
        import sonnet as snt
    except ImportError:
        return
    with seeded(0):
        model = tapeline.module(snt.Sequential([snt.Flatten(), snt.Linear(4), tf.nn.relu]), SPEC)
    assert len(model.trainable_variables) == 2
    with pytest.raises(ValueError, match="assigns its variable"):
        tapeline.module(snt.BatchNorm(True, True), tf.TensorSpec([4, 4, 3]))


# Refusals


class Growing(Plain):
    """A module that creates another variable in training."""

    def __call__(self, inputs, is_training):
        if is_training and not hasattr(self, "extra"):
            self.extra = tf.Variable(1.0, name="extra")
        return inputs * self.factor


OUTSIDE = []


class Outside(Plain):
    def __call__(self, inputs):
        return inputs * OUTSIDE[0]


class HiddenInside(Plain):
    """A module that draws from TensorFlow's generator inside a `tf.cond`."""

    def __call__(self, inputs):
        return tf.cond(
            self.factor > 1,
            lambda: inputs + tf.random.uniform(tf.shape(inputs), seed=1),
            lambda: inputs,
        )


class Generator(Plain):
    """Has a generator of its own, whose state is a variable."""

    def __init__(self):
        super().__init__()
        self.generator = tf.random.Generator.from_seed(1)

    def __call__(self, inputs):
        return inputs + self.generator.uniform(tf.shape(inputs))


class Samples(Plain):
    """Draws negative classes, as a sampled softmax does."""

    def __call__(self, inputs):
        drawn, *_ = tf.random.log_uniform_candidate_sampler([[1]], 1, 3, True, 5)
        return inputs * tf.cast(drawn, tf.float32)


class AssignsInside(Plain):
    def __call__(self, inputs):
        tf.cond(
            tf.reduce_sum(inputs) > 1,
            lambda: self.factor.assign(1.0),
            lambda: tf.identity(self.factor),
        )
        return inputs * self.factor


class Empty(tf.Module):
    def __call__(self, inputs):
        return inputs


class Silent(tf.Module):
    pass


class Masked(Plain):
    def __call__(self, inputs, mask):
        return inputs


class Both(Plain):
    def __call__(self, inputs, context, training):
        return inputs


class Stateless(Plain):
    def __call__(self, inputs, context):
        noise = tf.random.stateless_normal(tf.shape(inputs), context.seed("noise"))
        return inputs * self.factor + noise


def test_stateless_numbers_are_allowed():
    model = tapeline.module(Stateless(), SPEC)
    x = tf.ones([2, 3])
    np.testing.assert_array_equal(model(x, training()), model(x, training()))
    np.testing.assert_array_equal(model(x), model(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (NormLike, r"NormLike assigns its variable mean:0 in its call.*tl\.models\.BatchNorm"),
        (AssignsInside, r"AssignsInside assigns its variable factor:0 in its call"),
        (Growing, r"Growing creates the variable extra in its call: create all"),
        (Outside, r"Outside uses the variable elsewhere:0, which is none of its own"),
        (HiddenInside, r"generator with a hidden state \(.*andom.niform.*context\.seed"),
        (Generator, r"generator with a hidden state \(RngReadAndSkip\)"),
        (Samples, r"generator with a hidden state \(LogUniformCandidateSampler\)"),
        (Empty, r"Empty has no variables: make them attributes"),
        (Silent, r"Silent cannot be called: give it a method __call__\(self, inputs\)"),
        (Masked, r"Masked is called with \(inputs, mask\): its arguments have to be"),
        (Both, r"Both is called with \(inputs, context, training\): its arguments"),
        (lambda: 5, r"tl\.module takes a tf\.Module or a function that makes one, got 5"),
    ],
)
def test_refused_by_name(make, message):
    OUTSIDE[:] = [tf.Variable(1.0, name="elsewhere")]
    with pytest.raises(ValueError, match=message) as error:
        tapeline.module(make, SPEC)
    assert "\n" not in str(error.value)
