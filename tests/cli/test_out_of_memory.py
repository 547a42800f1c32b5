"""Out of memory is one line, exit status 1; nothing is lost, and the advice works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.command import Outcome, Run, Warm

# With the variable LACK, a tensor of more than 2^47 bytes, which no machine of today can address:
# of every batch, of more than 64 rows in training, or of more than 100 rows in evaluation. The
# condition is computed from the inputs, so that no graph optimizer knows the size.
MODEL = """import os

import tensorflow as tf

import tapeline as tl


class Net(tf.Module):
    def __init__(self, size, classes):
        super().__init__()
        if os.environ.get("LACK") == "state":
            self.huge = tf.Variable(tf.random.stateless_uniform([2**48], [1, 2]))
        self.kernel = tf.Variable(tf.zeros([size, classes]))

    def __call__(self, images, context):
        rows = tf.reshape(images, [-1, self.kernel.shape[0]])
        lack = os.environ.get("LACK", "")
        count = tf.cast(tf.reduce_sum(rows[:, 0] * 0 + 1), tf.int64)
        training = context is not None and context.training
        if lack == "static" and training:
            huge = tf.broadcast_to(rows[:, :1], [rows.shape[0], 2**45])
        elif lack == ("step" if training else "evaluation"):
            huge = tf.fill([count // (65 if training else 101) * 2**46], rows[0, 0])
        else:
            return rows @ self.kernel
        return rows @ self.kernel + 0 * tf.reduce_sum(huge)


@tl.model
def net(inputs, outputs):
    return Net(inputs.shape.num_elements(), outputs.shape[0])
"""
OPTIONS = ("--model=net", "--global_batch_size=128", "--checkpoint_every=3")


@pytest.fixture
def trains(warm: Warm, tmp_path: Path):
    """Returns a function that trains in a directory, with a lack of memory of some kind or none."""
    (tmp_path / "my.py").write_text(MODEL)

    def run(name: str, *options: str, lack: str = "") -> Outcome:
        directory = f"--run_dir={tmp_path / name}"
        return warm.run(f"--load={tmp_path / 'my.py'}", directory, *OPTIONS, *options, LACK=lack)

    return run


def line_of(outcome: Outcome) -> str:
    """Returns the one line on standard error of a command that ran out of memory."""
    assert outcome.status == 1, outcome.said()
    (line,) = outcome.err.splitlines()
    assert "OOM when allocating tensor" in line and "out of memory: " in line, line
    return line


def done(outcome: Outcome, run_dir: Path) -> Run:
    assert outcome.status == 0, outcome.said()
    return Run(run_dir, outcome)


def test_first_step(trains, tmp_path: Path):
    line = line_of(trains("run", "--train_steps=8", lack="step"))
    assert line.startswith("error: training failed after step 0: OOM when allocating tensor"), line
    assert "128 rows at a time" in line and "data 1" in line, line
    assert "run the same command with one of these" in line, line
    assert "--global_batch_size=64" in line, line
    (advised,) = re.findall(r"give (--accumulate=\d+), which computes 64 rows at a time", line)
    # What the line says works in the same directory, to the bits of a run that never failed.
    resumed = done(trains("run", "--train_steps=8", advised, lack="step"), tmp_path / "run")
    other = done(trains("other", "--train_steps=8", advised), tmp_path / "other")
    assert resumed.result["weights_sha256"] == other.result["weights_sha256"]
    assert resumed.result["deterministic"] is True and "given_up" not in resumed.result


def test_later_step(trains, tmp_path: Path):
    """A lack of memory in the middle of a run loses no step that was saved."""
    done(trains("run", "--train_steps=5"), tmp_path / "run")
    line = line_of(trains("run", "--train_steps=10", lack="step"))
    assert line.startswith("error: training failed after step 5: "), line
    assert "the same command resumes it once there is memory, " in line, line
    assert "another batch is another --run_dir" in line, line
    refused = trains("run", "--train_steps=10", "--accumulate=2")
    assert refused.status == 2 and "--accumulate=2 (was 1)" in refused.err
    resumed = done(trains("run", "--train_steps=10", "--feed=stream"), tmp_path / "run")
    other = done(trains("other", "--train_steps=10"), tmp_path / "other")
    assert resumed.result["weights_sha256"] == other.result["weights_sha256"]


def test_evaluation(trains, tmp_path: Path):
    options = ("--epochs=2",)
    line = line_of(trains("run", *options, lack="evaluation"))
    assert line.startswith("error: evaluation failed in batch 0: OOM"), line
    assert "run the same command with one of these to resume" in line, line
    (advised,) = re.findall(r"give (--evaluation_batch_size=\d+), which changes no result", line)
    resumed = done(trains("run", *options, advised, lack="evaluation"), tmp_path / "run")
    other = done(trains("other", *options), tmp_path / "other")
    assert resumed.result["weights_sha256"] == other.result["weights_sha256"]
    for name, value in resumed.result["validation"].items():
        assert value == pytest.approx(other.result["validation"][name], rel=1e-6)
    outcome = trains("run", "--mode=evaluate", "--evaluation_batch_size=512", lack="evaluation")
    assert "such as --evaluation_batch_size=128" in line_of(outcome)


def test_not_one_row(trains):
    """A step whose size is known from the graph is expected to fit at no batch size."""
    line = line_of(trains("run", "--train_steps=8", lack="static"))
    assert "a single row does not fit: give a smaller model" in line, line
    assert "--accumulate" not in line and "activations and gradients" in line, line


def test_state(trains, tmp_path: Path):
    line = line_of(trains("run", "--train_steps=8", lack="state"))
    assert line.startswith("error: cannot set the run up: my.py:12: OOM when allocating"), line
    assert "the slots of --optimizer=adam need more: give" in line, line
    assert not (tmp_path / "run").exists()


def test_modes_that_keep_no_run(trains):
    line = line_of(trains("run", "--mode=verify", "--jit=off", lack="step"))
    assert "give --accumulate=2, or a smaller --global_batch_size than 128" in line, line
