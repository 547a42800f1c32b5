"""Tests that `--mode=benchmark` prints the documented measurements and leaves no files."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests import measured
from tests.choices import seldom
from tests.cli.command import HANG, Command, Warm

FAST = ("--mode=benchmark", "--model=logistic", "--benchmark_steps=6", "--progress=off")


def figures(warm: Warm, *options: str) -> dict:
    outcome = warm.run(*FAST, *options)
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    return json.loads(outcome.out.splitlines()[-1])


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--feed=stream", "--global_batch_size=50"),
        seldom(("--jit=loop",)),
        ("--virtual_devices=2", "--shards=2"),
        ("--benchmark_data=synthetic", "--precision=mixed_bfloat16", "--model=cnn"),
    ],
    ids=str,
)
def test_json_figures(warm: Warm, tmp_path: Path, options: tuple[str, ...]):
    """The last line of the output is JSON with every measurement, within plausible bounds."""
    found = figures(warm, f"--run_dir={tmp_path / 'run'}", *options)
    rate = found["steps_per_second"]
    assert 0 < rate["p10"] <= rate["median"] <= rate["p90"]
    step = found["step_ms"]
    assert 0 < step["p50"] <= step["p90"] <= step["p99"]
    for name in ("examples_per_second", "gflops", "gflop_per_step", "roofline_gflops"):
        assert found[name] > 0, name
    assert 0 < found["roofline_fraction"] < 1.5
    assert 0 <= found["input_wait_fraction"] < 1
    assert found["peak_rss_mb"] > 100
    assert found["traces"] == {"train": 1}
    assert found["steps_timed"] >= 6
    assert found["config"]["model"] in ("logistic", "cnn") and "saving" not in found
    assert found["versions"]["tensorflow"] and found["device"]
    assert not (tmp_path / "run").exists()


UNKNOWN_SIZES = """
import tapeline as tl
import tensorflow as tf


class Network(tf.Module):
    def __init__(self):
        self.kernel = tf.Variable(tf.zeros([64, 10]))

    def __call__(self, images):
        flat = tf.py_function(lambda x: tf.reshape(x, [-1, 64]), [images], tf.float32)
        return tf.matmul(tf.ensure_shape(flat, [None, 64]), self.kernel)


@tl.model
def network():
    return tl.module(Network())
"""


def test_unknown_sizes(warm: Warm, tmp_path: Path):
    """A graph that does not know all sizes has no number of operations; all else is measured."""
    (tmp_path / "own.py").write_text(UNKNOWN_SIZES)
    found = figures(warm, f"--load={tmp_path / 'own.py'}", "--model=network")
    assert found["steps_per_second"]["median"] > 0 and found["roofline_gflops"] > 0
    for name in ("gflops", "gflop_per_step", "computed_gflop_per_step", "roofline_fraction"):
        assert found[name] is None


def test_benchmark_with(warm: Warm, tmp_path: Path):
    """Saving, logging and evaluation are measured on request, and leave a run as it was."""
    run_dir = tmp_path / "run"
    assert warm.run("--model=logistic", "--epochs=1", f"--run_dir={run_dir}").status == 0
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    asked = "--benchmark_with=saving,logging,evaluation"
    found = figures(warm, f"--run_dir={run_dir}", asked)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    for name in ("saving", "logging", "evaluation"):
        assert 0 < found[name]["stall_ms"]["median"] <= found[name]["stall_ms"]["max"]
    assert found["saving"]["megabytes"] > 0.005
    assert found["evaluation"]["examples"] == 144 + 360


@pytest.mark.parametrize("feed", ["resident", seldom("stream")])
def test_bad_steps_skipped(warm: Warm, tmp_path: Path, feed):
    """On data with one NaN, one of the 14 steps of each epoch is counted as bad and skipped."""
    dataset = measured.prepared(tmp_path / "data")
    options = f"--dataset={dataset}", "--global_batch_size=10", "--epochs=3", f"--feed={feed}"
    run_dir = tmp_path / "run"
    outcome = warm.run(*FAST, *options, "--benchmark_steps=120", f"--run_dir={run_dir}")
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    found = json.loads(outcome.out.splitlines()[-1])
    assert found["steps_left_out"] >= 120 // 14 and "skipped bad steps" in outcome.out
    assert 0 <= found["input_wait_fraction"] < 1
    assert not run_dir.exists()


def test_too_many_bad_steps(warm: Warm, tmp_path: Path):
    """More bad steps than training would skip end the benchmark with a one-line error."""
    dataset = measured.prepared(tmp_path / "data")
    options = f"--dataset={dataset}", "--global_batch_size=10", "--epochs=3", "--most_left_out=1"
    outcome = warm.run(*FAST, *options, "--benchmark_steps=600")
    assert outcome.status == 1, outcome.said()
    (line,) = outcome.err.splitlines()
    assert "gradient not finite" in line and "--most_left_out=1" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--benchmark_with=savings",), "did you mean 'saving'?"),
        (("--benchmark_data=random",), "choose one of real, synthetic"),
        (
            ("--benchmark_with=evaluation", "--validation_split=0", "--test_split="),
            "nothing was held out",
        ),
        (("--strategy=multi_worker",), "measures one machine"),
    ],
)
def test_bad_input(warm: Warm, options: tuple[str, ...], words: str):
    outcome = warm.run(*FAST, *options)
    assert outcome.status == 2, outcome.said()
    assert outcome.err.startswith("error: ") and words in outcome.err
    assert outcome.err.count("\n") == 1


def test_signal_stops_benchmark(command: Command, tmp_path: Path):
    options = ("--mode=benchmark", "--benchmark_steps=10000000", f"--run_dir={tmp_path / 'run'}")
    with command.started(*options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("train "):
                break
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (143, "")
    assert "nothing was written" in out
