"""Verification: a sound task satisfies all laws, and a broken law is named."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf

import tests.laws.product  # noqa: F401 - registers law_norm
from engine.assembly.registry import SOURCES
from engine.config import flags
from engine.runtime.errors import Interrupted
from engine.tasks.classification import Classification
from engine.tasks.metrics import Mean
from engine.tasks.task import Task, TaskOutput
from engine.verify import command, verify
from engine.verify.certificate import Certificate
from engine.verify.laws import l4_data_state
from engine.verify.runs import VerificationRuns
from pipelines import from_dataset, random_access
from tests.choices import seldom

SMALL = ("--model=logistic", "--global_batch_size=16", "--validation_split=0.05", "--test_split=")


@pytest.fixture
def config(cache_dir, tmp_path):
    def made(*options):
        run_dir = f"--run_dir={tmp_path / 'run'}"
        return flags.parse([*SMALL, f"--cache_dir={cache_dir}", run_dir, *options])

    return made


# Sound tasks


def test_sound_configuration_passes(config, tmp_path):
    lines: list[str] = []
    certificate = verify(config("--strategy=gpu", "--ema=0.9"), print_line=lines.append)
    assert certificate.passed and certificate.broken == []
    assert [verdict.law for verdict in certificate.verdicts] == [f"L{n}" for n in range(1, 9)]
    assert all(verdict.passed for verdict in certificate.verdicts), lines
    assert certificate.summary.startswith("PASS: 8 laws hold")
    assert [line.split()[0] for line in lines[1:]] == [
        *("L4", "L3", "L5", "L2", "L1", "L7", "L8", "L6")
    ]
    assert all(" ... ok " in line for line in lines[1:])
    # There is no GPU here: the output says so and claims none.
    assert "--strategy=gpu asks for a GPU and TensorFlow finds none" in lines[0]
    assert lines[0].splitlines()[0].endswith("on CPU; replicas: 2 virtual CPU devices, mirrored")
    read = json.loads(certificate.json)
    assert read["passed"] is True and len(read["laws"]) == 8
    assert read["config"]["ema"] == 0.9 and read["device"]["device"] == "CPU"
    assert all(law["measured"] <= law["bound"] for law in read["laws"])
    assert list(tmp_path.iterdir()) == []


def test_batch_norm_not_compared(config):
    """Batch norm is not compared with its micro-batches, which is no failure."""
    certificate = verify(config("--model=law_norm"))
    assert certificate["L1"].passed is None and certificate.passed
    reason = "L1 not compared (batch norm sees its micro-batch)"
    assert certificate.summary.startswith(f"PASS: 7 laws hold, {reason}")


def test_shards_give_same_bits(config):
    """With shards, replicas compute the same bits; a metric need not be a count."""
    certificate = verify(config("--shards=2", "--virtual_devices=2"), Squared)
    assert certificate.passed, certificate.summary
    assert "the same bits in all" in certificate["L7"].found
    assert certificate.device["device"] == "2 virtual CPU devices, mirrored"


def test_replicas_compared_without_xla(config):
    """XLA compiles for one device only; the other laws keep it there."""
    lines: list[str] = []
    certificate = verify(config("--jit=loop", "--train_steps=9"), print_line=lines.append)
    assert certificate.passed, certificate.summary
    for law in ("L7", "L8"):
        assert "--jit=off, not loop" in certificate[law].done
    assert "replica 2 of 2" in certificate["L2"].done
    assert "train  16 steps on the schedule of a run of 32, longer than this one of 9" in lines[0]


def test_automatic_xla_in_bfloat16(config):
    """Where XLA is chosen automatically for one device, its rounding is not taken for a fault."""
    certificate = verify(config("--precision=mixed_bfloat16", "--optimizer=lion"))
    assert certificate.passed, certificate.summary
    assert "--jit=off, not auto" in certificate["L7"].done


class Squared(Task):
    """A task of another kind, whose metric is not a count."""

    metrics = {"error": Mean()}  # noqa: RUF012

    def __call__(self, model, batch, context):
        wanted = tf.one_hot(batch.targets, 10)
        error = tf.reduce_mean((model(batch.inputs, context) - wanted) ** 2, axis=-1)
        return TaskOutput(error, {"error": (error,)})


# Broken laws


class Changed(Classification):
    """Classification with another loss."""

    def __call__(self, model, batch, context):
        output = super().__call__(model, batch, context)
        return output._replace(losses=self.changed(output.losses, model, context))

    def changed(self, losses, model, context):
        raise NotImplementedError


class DrawsHiddenNumbers(Changed):
    def changed(self, losses, model, context):
        return losses * tf.random.uniform(tf.shape(losses))


class DrawsInPython(Changed):
    def changed(self, losses, model, context):
        return losses * np.float32(np.random.default_rng().uniform())


class CountsItsCalls(Changed):
    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False, name="calls")

    def changed(self, losses, model, context):
        if context.training:
            self.calls.assign_add(1.0)
        return losses / (1.0 + self.calls)


class AssignsInThePass(Changed):
    def changed(self, losses, model, context):
        if context.training:
            weight = model.trainable_variables[0]
            weight.assign(weight * 0.999)
        return losses


class LooksAtItsPortion(Changed):
    def changed(self, losses, model, context):
        return losses - 0.5 * tf.reduce_mean(losses)


class CountsInPython(Changed):
    calls = 0

    def changed(self, losses, model, context):
        self.calls += 1
        return losses * self.calls


class KnowsItsReplica(Changed):
    def changed(self, losses, model, context):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return losses * (1.0 + tf.cast(replica, tf.float32))


class SumsItsMetric(Classification):
    def __init__(self):
        super().__init__(metrics={"right": Mean()})

    def __call__(self, model, batch, context):
        output = super().__call__(model, batch, context)
        labels, logits = output.metrics["right"]
        right = tf.cast(tf.argmax(logits, -1, output_type=tf.int32) == labels, tf.float32)
        return output._replace(metrics={"right": (tf.fill(tf.shape(right), tf.reduce_sum(right)),)})


class SumsItsSmallMetric(SumsItsMetric):
    """The same metric in units in which it rounds to 0, which is an integer."""

    def __call__(self, model, batch, context):
        output = super().__call__(model, batch, context)
        return output._replace(metrics={"right": (output.metrics["right"][0] * 1e-8,)})


# A task given as an object, not as a class, is copied: its state must not affect the verdict.
BROKEN = {
    DrawsHiddenNumbers: (["L3"], "draws by RandomUniform"),
    DrawsInPython: (["L3", "L6"], "tensors differ"),
    CountsItsCalls(): (["L5", "L1", "L7"], "steps write calls:0, not in the state"),
    AssignsInThePass: (["L2", "L1"], "inf changed 1_dense/bias:0"),
    LooksAtItsPortion: (["L1", "L7", "L8"], "losses of rows"),
    CountsInPython(): (["L6", "L1", "L7", "L8"], "by a number of Python's"),
    KnowsItsReplica: (["L7", "L8"], "gradient norm"),
    SumsItsMetric: (["L8"], "right"),
    SumsItsSmallMetric: (["L8"], "right"),
}


@pytest.fixture(scope="module")
def certificate_of(cache_dir):
    """Returns a function from a task to its certificate, computed once."""

    @functools.cache
    def made(task) -> Certificate:
        return verify(flags.parse([*SMALL, "--jit=off", f"--cache_dir={cache_dir}"]), task)

    return made


def name_of(task) -> str:
    return task.__name__ if isinstance(task, type) else type(task).__name__


ALIKE = DrawsInPython, SumsItsSmallMetric  # others break the same law


@pytest.mark.parametrize(
    "task", [seldom(task) if task in ALIKE else task for task in BROKEN], ids=name_of
)
def test_names_broken_law(certificate_of, task):
    broken, words = BROKEN[task]
    certificate = certificate_of(task)
    assert certificate.broken == broken, certificate.summary
    assert certificate.summary.startswith(f"FAIL {broken[0]} ")
    assert words in certificate[broken[0]].found
    for law in broken[1:]:
        assert law in certificate.summary.split("also broken: ")[1]


def test_irreproducible_run(certificate_of):
    """If the same run differs twice, nothing else is compared."""
    verdicts = certificate_of(DrawsHiddenNumbers).verdicts
    left_open = {verdict.law for verdict in verdicts if verdict.passed is None}
    assert left_open == {"L1", "L5", "L7", "L8"}


# Sources


def pipeline_of(random):
    """Returns a source of a pipeline in an order that `random`, a function of seed, draws."""

    def make(seed, epoch):
        order = random([seed, epoch]).permutation(100)
        features = np.stack([order, -order], 1).astype(np.float32)
        return tf.data.Dataset.from_tensor_slices((features, order % 2))

    return from_dataset(make, examples=100, version="1", class_names=2)


def function_of(random):
    """Returns a source of a function that reads values that `random`, a function of seed, draws."""

    def read(index):
        return random([index]).random(2, np.float32), index % 2

    return random_access(examples=100, read=read, version="1", class_names=2)


@pytest.mark.parametrize("make", [pipeline_of, function_of])
@pytest.mark.parametrize("hidden", [True, False])
def test_names_source_with_hidden_random_numbers(config, make, hidden, monkeypatch, tmp_path):
    def random(seed):
        return np.random.default_rng(None if hidden else seed)

    monkeypatch.setitem(SOURCES._entries, "mine", lambda: make(random))
    options = config("--dataset=mine", "--validation_split=0", "--jit=off")
    runs = VerificationRuns(options, None, str(tmp_path), lambda: False)
    finding = l4_data_state.check(runs)
    runs.close()
    assert finding.passed is not hidden
    named = "mine gives other examples when the same ones are read again"
    assert (named in finding.found) is hidden


# Refusals and errors


def test_refuses_shared_task(config):
    task = Squared()
    with pytest.raises(ValueError, match="the same task twice"):
        verify(config(), lambda: task)


def test_refuses_uncopyable_task(config):
    task = Squared()
    task.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="cannot be copied"):
        verify(config(), task)


def test_task_error_propagates(config):
    class Wrong(Squared):
        def __call__(self, model, batch, context):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        verify(config(), Wrong)


def test_interrupt(config):
    with pytest.raises(Interrupted):
        verify(config(), interrupted=lambda: True)


# The command


def test_signal_stops_command(config, tmp_path, monkeypatch, capsys):
    def stopped(config, *, print_line, interrupted):
        def told(line):
            print_line(line)
            os.kill(os.getpid(), signal.SIGINT)

        return verify(config, print_line=told, interrupted=interrupted)

    monkeypatch.setattr(command, "verify", stopped)
    before = signal.getsignal(signal.SIGINT)
    (tmp_path / "run").mkdir()
    assert command.run(config()) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out.endswith("stopped by signal 2; nothing was written\n")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("exists", [True, False])
def test_broken_law_exit_status(config, tmp_path, monkeypatch, capsys, certificate_of, exists):
    broken = certificate_of(SumsItsMetric)
    monkeypatch.setattr(command, "verify", lambda config, **told: broken)
    if exists:
        (tmp_path / "run").mkdir()
    assert command.run(config()) == 1
    *_, text, last = capsys.readouterr().out.splitlines()
    assert last == broken.summary and last.startswith("FAIL L8 ")
    assert json.loads(text)["broken"] == ["L8"]
    written = tmp_path / "run" / "verify.json"
    assert written.exists() == exists
    if exists:
        assert json.loads(written.read_text()) == json.loads(text)
        assert [path.name for path in written.parent.iterdir()] == ["verify.json"]
