"""Which steps of user-defined parts `--jit=auto` lets XLA compile, as a table."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.assembly import compiled_step
from engine.assembly.compiled_step import KEY, StepExamination
from engine.core import compilable, xla
from engine.optim.fused import GradientDescent
from tests.laws.product import assembled

SPEC = tf.TensorSpec([4, 6], tf.float32)


def failing(x):
    raise ValueError("of a user")


def obstacle(compute, spec):
    return compilable.obstacle(compilable.traced(compute, spec))


def doubled(x):
    return tf.map_fn(lambda row: 2 * row, x)


@pytest.mark.parametrize(
    ("compute", "found"),
    [
        (lambda x: tf.nn.gelu(tf.matmul(x, x, transpose_b=True)), ""),
        (tf.function(lambda x: tf.nn.log_softmax(x) - tf.reduce_max(x)), ""),
        (lambda x: tf.einsum("ab,cb->ac", x, x) / tf.norm(x), ""),
        (lambda x: tf.one_hot(tf.argmax(x, -1), 6), ""),
        (lambda x: tf.py_function(lambda y: y, [x], tf.float32), "EagerPyFunc"),
        (lambda x: tf.numpy_function(lambda y: y, [x], tf.float32), "PyFunc"),
        (lambda x: tf.unique(x[0]).y, "Unique"),
        (lambda x: tf.boolean_mask(x, x > 0), "Where"),
        (lambda x: tf.strings.length(tf.strings.as_string(x)), "AsString"),
        (lambda x: tf.sort(x), "TopKV2"),
        (doubled, "StatelessWhile"),
        (lambda x: tf.random.normal([4]) + x[:, 0], "RandomStandardNormal"),
        (lambda x: tf.nn.conv1d(x[None], tf.ones([3, 6, 2]), 1, "SAME"), "Conv2D"),
        (lambda x: tf.cumsum(x), "Cumsum"),
        (lambda x: tf.reshape(x, tf.cast(x[0, :2], tf.int32)), None),
    ],
)
def test_operations(compute, found):
    """A step is compiled if all of its operations are in the table, and XLA can convert it."""
    cannot = "XLA cannot convert the step"
    expected = cannot if found is None else found and f"the step has the operation {found}"
    assert obstacle(compute, SPEC) == expected


def test_strings():
    words = tf.TensorSpec([4], tf.string)
    assert obstacle(lambda both: both[0] + 1, (SPEC, words)) == ("the examples hold strings")


class Options:
    """Options of a run."""

    class run:  # noqa: N801
        """Options of one run."""

        mode, run_dir, resume = "train", "somewhere", "auto"

    class precision:  # noqa: N801
        """Options of the precision."""

        precision = "float32"


class Step:
    """A training step."""

    optimizer = GradientDescent()


LOADED = [{"file": "my.py", "sha256": "1"}]
OTHER = [{"file": "my.py", "sha256": "2"}]


@pytest.fixture(autouse=True)
def native(monkeypatch):
    """A processor that computes in bfloat16 by oneDNN."""
    monkeypatch.setattr(compiled_step.processor_choices, "is_native", lambda *given: True)


@pytest.mark.parametrize(
    ("metadata", "at_graph", "returned", "result"),
    [
        (None, "", "", ""),  # a new run
        (None, "an operation", "an operation", "an operation"),
        ({"load": LOADED}, "", compiled_step._OLDER, None),
        ({"load": LOADED, KEY: ""}, "an operation", "", ""),
        ({"load": LOADED, KEY: "an operation"}, "", "an operation", "an operation"),
        ({"load": LOADED, KEY: None}, "", "", ""),  # started on several devices
        ({"load": OTHER, KEY: ""}, "", "", ""),
        ({"load": OTHER, KEY: ""}, "an operation", compiled_step._CHANGED, ""),
        ({"load": OTHER, KEY: ""}, compiled_step._SLOWER, "", ""),
        ({"load": OTHER, KEY: "an operation"}, "", "an operation", "an operation"),
    ],
)
def test_run_keeps_what_was_found(monkeypatch, metadata, at_graph, returned, result):
    """A resumed run uses the result of its start; a run of an older version compiles nothing."""
    monkeypatch.setattr(compiled_step, "kept", lambda run_dir: metadata)
    monkeypatch.setattr(compiled_step.user_code, "digests", lambda: LOADED)
    monkeypatch.setattr(StepExamination, "_examined", lambda self, own: at_graph)
    examination = StepExamination(Options, None, Step, 1)
    assert (examination(own=False), examination.result) == (returned, result)


@pytest.mark.parametrize(
    ("metadata", "at_graph", "returned", "result"),
    [
        (None, "a precision", "a precision", "a precision"),  # a new run
        ({"load": []}, "a precision", "", None),  # of a version that always compiled these
        ({"load": [], KEY: None}, "a precision", "", None),
        ({"load": [], KEY: ""}, "a precision", "", ""),
        ({"load": OTHER, KEY: "a precision"}, "", "a precision", "a precision"),
    ],
)
def test_run_of_own_parts_keeps_what_was_found(monkeypatch, metadata, at_graph, returned, result):
    """A resumed run of Tapeline's parts alone uses what its start found, on any processor."""
    monkeypatch.setattr(compiled_step, "kept", lambda run_dir: metadata)
    monkeypatch.setattr(compiled_step.user_code, "digests", lambda: LOADED)
    monkeypatch.setattr(StepExamination, "_examined", lambda self, own: at_graph)
    examination = StepExamination(Options, None, Step, 1)
    assert (examination(own=True), examination.result) == (returned, result)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("precision", "units", "found"),
    [
        ("mixed_bfloat16", 512, compiled_step._SLOWER),
        ("mixed_bfloat16", 64, ""),
        ("float32", 512, ""),
        ("mixed_float16", 512, ""),
    ],
)
def test_slower_by_xla(tmp_path, own, precision, units, found):
    """XLA's large products in bfloat16 are slower than oneDNN's, where it computes in bfloat16."""
    options = {"model": "mlp", "hidden": (units, units), "jit": "off", "precision": precision}
    parts = assembled(str(tmp_path), **options)
    rows = parts.config.training.global_batch_size
    examined = StepExamination(parts.config, parts.source, parts.loop.step, 4 * rows)
    assert examined(own) == found


def test_unknown_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_step.processor_choices, "is_native", lambda *given: False)
    options = {"model": "mlp", "hidden": (512, 512), "jit": "off", "precision": "mixed_bfloat16"}
    parts = assembled(str(tmp_path), **options)
    assert StepExamination(parts.config, parts.source, parts.loop.step, 256)(own=True) == ""


def test_user_defined_optimizer(monkeypatch):
    monkeypatch.setattr(compiled_step, "kept", lambda run_dir: None)
    step = Step()
    step.optimizer = Options()
    assert StepExamination(Options, None, step, 1)(own=False) == xla.USER_DEFINED
