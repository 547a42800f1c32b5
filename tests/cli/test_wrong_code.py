"""Tests that errors in a user's code are one line with file and line number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Warm
from tests.cli.test_load import refused
from tests.cli.user_task import HEAD, RETURNED, TASK

# What the last line of the task returns instead: what the error says, after "my.py:14: ".
TASKS = {
    'tl.TaskOutput(tf.reduce_mean(losses), {"right": (losses,)})': "Mine returns losses of sh",
    'tl.TaskOutput(losses[:5], {"right": (losses,)})': "Mine returns losses of shape [5]",
    'tl.TaskOutput(logits, {"right": (losses,)})': "Mine returns losses of shape [64, 10]",
    "tl.TaskOutput(losses, {'right': (losses,)}, losses[:3])": "Mine returns weights of shape [3]",
    "losses": "Mine returned a ",
    "tl.TaskOutput([1.0], {'right': (losses,)})": "Mine returns losses of shape [1]",
    'tl.TaskOutput(losses, {"right": (tf.reduce_mean(losses),)})': "Mine gives the metric right a",
    'tl.TaskOutput(losses, {"right": (losses[:3],)})': "Mine gives the metric right a tensor of",
    'tl.TaskOutput(losses, {"right": (losses, logits[:, :3])})': "Mine: metric right",
    'tl.TaskOutput(losses, {"right": ()})': "Mine: metric right",
    'tl.TaskOutput(losses, {"wrong": (losses,)})': "Mine: it has the metrics right, and",
    "tl.TaskOutput(tf.zeros_like(losses), {'right': (losses,)})": "the loss does not depend on",
    "tl.TaskOutput(tf.stop_gradient(losses), {'right': (losses,)})": "the loss does not depend on",
}

MODULE = """class Net(tf.Module):
    def __init__(self, size, classes):
        super().__init__()
        self.kernel = tf.Variable(tf.zeros([size, classes]))

    def __call__(self, images, context):
        rows = tf.reshape(images, [-1, self.kernel.shape[0]])
        return rows @ self.kernel


@tl.model
def net(inputs, outputs, *, depth: int = 4):
    return Net(inputs.shape.num_elements(), outputs.shape[0])
"""
SOFTMAX = "return rows @ self.kernel"
# Text of the module, and what replaces it: what the error says.
MODELS = {
    (
        "self.kernel = tf.Variable(tf.zeros([size, classes]))",
        "self.kernel = tf.zeros([size, 10])",
    ): ("my.py:16: net has no trainable variables"),
    ("tf.zeros([size, classes])", "tf.zeros([size, classes + 1])"): (
        "my.py:16: net has outputs float32 [11], and the task needs float32 [10]"
    ),
    (SOFTMAX, "return {'logits': rows @ self.kernel}"): "my.py:16: net has outputs {logits: ",
    (SOFTMAX, "return tf.reduce_sum(rows @ self.kernel)"): "my.py:16: net has outputs ",
    (
        SOFTMAX,
        "self.b = tf.Variable(0.0)\n        return self.b + rows @ self.kernel",
    ): "my.py:13: ",
    (SOFTMAX, "b = tf.Variable(0.0)\n        return b + rows @ self.kernel"): "my.py:13: ",
    (SOFTMAX, "return rows @ tf.stop_gradient(self.kernel)"): (
        "my.py:16: the loss does not depend on the trainable kernel\n"
    ),
    (SOFTMAX, "return rows @ self.kernels"): "my.py:13: AttributeError: ",
    (SOFTMAX, "return rows[:, 1:] @ self.kernel"): "my.py:13: ",
    ("return Net(", "return str("): "my.py:18: TypeError",
    ("return Net(inputs.shape.num_elements(), outputs.shape[0])", "return None"): (
        "my.py:16: net returned a NoneType"
    ),
    ("return Net(inputs.shape.num_elements(), outputs.shape[0])", "return []"): (
        "my.py:16: net has no layers"
    ),
    (
        "return Net(inputs.shape.num_elements(), outputs.shape[0])",
        "return tl.module(Net(inputs.shape.num_elements(), 3))",
    ): "my.py:16: net has outputs float32 [3], and the task needs float32 [10]",
    (SOFTMAX, "return tf.py_function(lambda x: x @ self.kernel, [rows], tf.float32)"): (
        "my.py:16: net: the graph does not know the shape of its outputs, float32 [...]: return"
    ),
    ("(self, images, context)", "(self, images)"): (
        "my.py:16: net returned a Net that cannot be called with (inputs, context): return "
    ),
}


def line_of(warm: Warm, folder: Path, text: str, *options: str) -> str:
    """Returns the error line of a run with a `--load` file of this text.

    Asserts that the run directory is not created.
    """
    file = folder / "my.py"
    file.write_text(text)
    run_dir = folder / "run"
    given = "--dataset=digits", "--global_batch_size=64", *options
    line = refused(warm.run(f"--load={file}", f"--run_dir={run_dir}", *given))
    assert not run_dir.exists()
    return line


@pytest.mark.parametrize("returned", TASKS)
def test_wrong_task(warm: Warm, tmp_path: Path, returned: str):
    text = HEAD + TASK.replace(RETURNED, returned)
    line = line_of(warm, tmp_path, text, "--task=mine", "--model=logistic")
    assert line.startswith(f"error: my.py:14: {TASKS[returned]}"), line


@pytest.mark.parametrize("old, new", MODELS)
def test_wrong_model(warm: Warm, tmp_path: Path, old: str, new: str):
    assert old in MODULE
    line = line_of(warm, tmp_path, HEAD + MODULE.replace(old, new), "--model=net")
    assert line.startswith(f"error: {MODELS[old, new]}"), line


@pytest.mark.parametrize("call", ["b = tf.Variable(0.0)", "self.b = tf.Variable(0.0)"])
def test_variable_created_in_the_call_of_a_module(warm: Warm, tmp_path: Path, call: str):
    """`tl.module` refuses a module that creates a variable in each call."""
    text = MODULE.replace("return Net(", "return tl.module(Net(").replace(
        "shape[0])\n", "shape[0]))\n"
    )
    text = text.replace(SOFTMAX, f"{call}\n        {SOFTMAX}")
    line = line_of(warm, tmp_path, HEAD + text, "--model=net")
    assert line.startswith("error: my.py:13: ValueError: Net creates the variable"), line


def test_wrong_argument(warm: Warm, tmp_path: Path):
    line = line_of(warm, tmp_path, HEAD + MODULE, "--model=net", "--model.depth=x")
    assert line == "error: my.py:16: --model.depth=x: give a whole number\n"


@pytest.mark.parametrize("kind", ["model", "task", "source", "optimizer", "schedule", "metric"])
def test_two_registrations_of_a_name(warm: Warm, tmp_path: Path, kind: str):
    one = f"@tl.{kind}\ndef twice():\n    return []\n\n\n"
    line = line_of(warm, tmp_path, HEAD + one + one)
    assert line.startswith("error: my.py:11: ValueError: a"), line
    assert "named 'twice' is registered already" in line and " in my.py:6;" in line


def test_nan_from_the_first_step(warm: Warm, tmp_path: Path):
    """A loss that is NaN from the first step ends the run with a one-line error."""
    text = TASK.replace(RETURNED, "tl.TaskOutput(losses / 0.0 * 0.0, {'right': (losses,)})")
    (tmp_path / "my.py").write_text(HEAD + text)
    load, run_dir = f"--load={tmp_path / 'my.py'}", f"--run_dir={tmp_path / 'run'}"
    outcome = warm.run(load, run_dir, "--task=mine", "--model=logistic")
    assert outcome.status == 1, outcome.said()
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: all steps from the first on are bad (gradient not finite)"), line
    assert "nan or infinite at the initial weights" in line and (tmp_path / "run").exists()


@pytest.mark.full
def test_hidden_generator(warm: Warm, tmp_path: Path):
    """Verification names a task's hidden random generator, which training does not detect."""
    drawn = "tl.TaskOutput(losses * tf.random.uniform([]), {'right': (losses,)})"
    (tmp_path / "my.py").write_text(HEAD + TASK.replace(RETURNED, drawn))
    load, run_dir = f"--load={tmp_path / 'my.py'}", f"--run_dir={tmp_path / 'run'}"
    outcome = warm.run("--mode=verify", load, run_dir, "--task=mine", "--model=logistic")
    assert outcome.status == 1, outcome.said()
    last = outcome.out.splitlines()[-1]
    assert last.startswith("FAIL L3 ") and "a step draws by RandomUniform" in last
