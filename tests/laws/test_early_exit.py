"""Tests that a call of the loop which runs on after a bad step has the bits of one that leaves."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.assembly import parts as assembly
from engine.config import flags
from engine.core.log_points import NEVER, LogPoints
from engine.core.loop import Loop
from engine.distributed.cluster import Cluster
from engine.runtime.startup import Startup
from engine.tasks.classification import Classification
from engine.tasks.task import Task
from engine.trainer import command
from pipelines.feeds import stream
from tests import measured
from tests.choices import seldom
from tests.laws.product import assembled
from tests.laws.test_compiled import skip_without_float16

BATCH, EPOCH = 8, 10  # examples, steps; the last step has 5 examples
OPTIONS = {
    "train_split": "train[:77]",
    "global_batch_size": BATCH,
    "model": "law_linear",
    "schedule": "cosine",
    "train_steps": 2 * EPOCH,
}
DYNAMIC = {"precision": "mixed_float16", "loss_scale_growth_steps": 3}
# In one epoch: a bad step before a log point, at one, at the first and the last step of a call.
BAD = (2, 3, 7, 9)
CASES = [
    {"ema": 0.9},
    {"feed": "stream", "accumulate": 2, **DYNAMIC},
    {"replicas": 2, "ema": 0.9, **DYNAMIC},
    {"replicas": 2, "feed": "stream", "optimizer": "momentum"},
    {"shards": 4, "accumulate": 2, "ema": 0.9},
    {"replicas": 2, "shards": 4, "feed": "stream", **DYNAMIC},
    {"jit": "step", "ema": 0.9, "clip_norm": 0.5},
    {"jit": "loop", "accumulate": 2, "feed": "stream", "ema": 0.9},
    {"jit": "loop", "model": "mlp", "loss_scale": 4.0},  # enough weights for a loop of one turn
    seldom({"jit": "step", "model": "mlp", "feed": "stream", "accumulate": 2}),
    seldom({"jit": "step", **DYNAMIC}),
    seldom({"jit": "loop", "ema": 0.9, **DYNAMIC}),
    seldom({"optimizer": "muon", "feed": "stream", "ema": 0.9}),
    seldom({"optimizer": "adamw", "accumulate": 2, "schedule": "plateau"}),
    seldom({"precision": "mixed_bfloat16", "replicas": 2, "shards": 2}),
]


class NanInputs(Task):
    """Task wrapper that makes the first example of the global batch nan in some steps of an epoch.

    The steps are those where `bad`, bool [EPOCH], is True.
    """

    def __init__(self) -> None:
        self.task = Classification()
        self.metrics = self.task.metrics
        self.bad = tf.Variable(tf.zeros([EPOCH], tf.bool), trainable=False)

    def output_spec(self, source):
        return self.task.output_spec(source)

    def __call__(self, model, batch, context):
        bad = tf.gather(self.bad, batch.position // BATCH) & (batch.row == 0)
        first = tf.range(tf.shape(batch.mask)[0]) == 0
        factor = tf.where(bad & first, np.nan, 1.0)[:, None, None, None]
        return self.task(model, batch._replace(inputs=batch.inputs * factor), context)


def everywhere(parts) -> list[bytes]:
    """Returns the bytes of each state variable, on each replica."""
    return [
        copy.numpy().tobytes()
        for variable in parts.state.variables
        for copy in parts.strategy.experimental_local_results(variable)
    ]


def history(parts, loop, calls, points):
    """Trains an epoch in calls of these lengths, from the same state each time.

    Returns:
      After each call: its result without the number of computed steps, as bytes and numbers, and
      the bytes of the state.
    """
    found, lengths = [], itertools.cycle(calls)
    while (step := int(parts.state.step)) < EPOCH:
        asked = min(next(lengths), EPOCH - step)
        taken = loop.run(asked, points)
        if loop.early_exit:
            assert taken.computed == taken.steps
        elif "stream" not in parts.feed_kind:
            assert taken.computed == asked
        losses, norms = taken.losses.tobytes(), taken.norms.tobytes()
        reached = [(*point[:-1], point.sums.tobytes()) for point in taken.points]
        found.append((taken.steps, taken.finite, losses, norms, reached, everywhere(parts)))
    return found


def both(parts, task, bad, calls, points):
    """Trains an epoch in both ways from the same state; returns both histories."""
    task.bad.assign([step in bad for step in range(EPOCH)])
    start = [(variable, variable.numpy()) for variable in parts.state.variables]
    histories = []
    for loop in parts.loops:
        histories.append(history(parts, loop, calls, points))
        for variable, value in start:
            variable.assign(value)
    return histories


def with_both_loops(place, task, **options):
    """Returns a run with the attribute `loops`: its loop, and one that does not leave early."""
    parts = assembled(str(place), task=task, **{**OPTIONS, **options})
    loop = dataclasses.replace(parts.loop, watched=True)
    object.__setattr__(parts, "loops", (loop, dataclasses.replace(loop, early_exit=False)))
    return parts


@pytest.mark.parametrize("options", CASES, ids=lambda each: "-".join(map(str, each.values())))
def test_both_ways_bitwise(tmp_path, monkeypatch, options):
    """Results, state, log points and losses are those of the loop that leaves at a bad step."""
    if options.get("precision") == "mixed_float16" and "jit" in options:
        skip_without_float16()
    monkeypatch.setattr(stream, "_TABLE", 4 * BATCH * 64)  # blocks of four steps
    task = NanInputs()
    parts = with_both_loops(tmp_path, task, **options)
    for calls, every in (([EPOCH], 4), ([3, 4], 5), ([1], NEVER), ([2, EPOCH], 1)):
        for bad in ((), BAD):
            left, stayed = both(parts, task, bad, calls, LogPoints(every, EPOCH))
            assert stayed == left
            ends = itertools.accumulate(steps for steps, *_ in left)
            verdicts = zip(ends, (finite for _, finite, *_ in left), strict=True)
            found = {end - 1 for end, finite in verdicts if not finite}
            # The dynamic loss scale grows until float16 overflows.
            assert found == {*bad} or ("loss_scale_growth_steps" in options and found > {*bad})
    assert [loop.traces for loop in parts.loops] == [1, 1]
    parts.close()


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """Returns a run with both loops on a stream of blocks of four steps, and its task."""
    task = NanInputs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_TABLE", 4 * BATCH * 64)
        place = tmp_path_factory.mktemp("run")
        parts = with_both_loops(place, task, feed="stream", loss_scale=8.0)
    assert parts.feeds.training._steps == 4
    yield parts, task
    parts.close()


@settings(max_examples=25)
@given(
    bad=st.sets(st.integers(0, EPOCH - 1)),
    calls=st.lists(st.integers(1, EPOCH), min_size=1, max_size=5),
    every=st.integers(1, EPOCH + 1),
)
@example(bad={0}, calls=[EPOCH], every=1)
@example(bad={3, 4}, calls=[EPOCH], every=4)
@example(bad=set(range(EPOCH)), calls=[EPOCH], every=2)
def test_any_bad_steps(streamed, bad, calls, every):
    """The bits are the same for any bad steps, calls and log points, on a feed in blocks."""
    parts, task = streamed
    left, stayed = both(parts, task, bad, calls, LogPoints(every, EPOCH))
    assert stayed == left


@pytest.mark.parametrize("tolerated", [0, 3], ids=["left_out", "tolerated"])
def test_trainer_writes_same_files(tmp_path, cache_dir, monkeypatch, tolerated):
    """A run with bad steps, tolerated or skipped, writes the same files in both ways."""
    dataset = measured.prepared(tmp_path / "data")
    written = []
    for early_exit in (True, False):
        place = tmp_path / str(early_exit)
        options = {
            "dataset": dataset,
            "model": "logistic",
            "jit": "off",
            "global_batch_size": 10,
            "steps_per_loop": "7",
            "epochs": 3,
            "validation_split": "0.1",
            "log_every": 4,
            "checkpoint_every": 5,
            "ema": 0.9,
            "bad_steps": tolerated,
            "bad_steps_in_a_row": min(tolerated, 1),
            "spike": 10,
            "strategy": "cpu",
            "progress": "off",
            "report": False,
            "run_dir": str(place),
            "cache_dir": cache_dir,
        }
        config = flags.from_values(options)
        with monkeypatch.context() as patch:
            way = {"early_exit": early_exit}
            patch.setattr(assembly, "Loop", lambda *a, _way=way, **k: Loop(*a, **(k | _way)))
            with Cluster(config.devices, {}) as company:
                assert command.train(config, None, Startup(), company) == 0
        written.append(contents(place))
    left, stayed = written
    assert [name for name in left if stayed[name] != left[name]] == []
    assert stayed.keys() == left.keys()
    assert left["result skipped_steps"] == 3
    assert len(left.get("result left_out") or []) == (0 if tolerated else 3)
    assert "newest step" in left


def contents(run_dir):
    """Returns what a run has written, by name, without what depends on the clock."""
    seconds = ("train_seconds", "startup_seconds", "first_step_seconds")
    timed = (*seconds, "steps_per_second", "goodput")
    result = json.loads((run_dir / "result.json").read_text())
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    found = {f"result {name}": value for name, value in result.items() if name not in timed}
    found["rows"] = [{n: v for n, v in row.items() if n not in timed} for row in rows]
    for path in run_dir.rglob("*.jsonl"):
        if path.name != "metrics.jsonl":
            found[path.name] = path.read_text()
    # How many checkpoints are saved on the way depends on the time that saving takes.
    newest = max(run_dir.glob("checkpoints/*.npz"), key=lambda path: int(path.stem[5:]))
    (best,) = run_dir.glob("best/*.npz")
    for path in (newest, best, *run_dir.glob("left_out/*.npz")):
        for name, value in np.load(path, allow_pickle=False).items():
            if isinstance(value, np.ndarray) and "timing" not in name:
                key = {newest: "newest", best: "best"}.get(path, path.name)
                found[f"{key} {name}"] = value.tobytes()
    return found
