"""Tests of `verify`: a correct task passes all laws, and the certificate names a broken law."""

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
from engine.models.registry import NETWORKS
from engine.runtime.errors import Interrupted
from engine.tasks.classification import Classification
from engine.tasks.metrics import Mean
from engine.tasks.task import Task, TaskOutput
from engine.verify import bounds, command, rounding_errors, verification, verify
from engine.verify.certificate import Certificate, Finding
from engine.verify.differences import Difference
from engine.verify.laws import LAWS, l4_data_state, l7_topology
from engine.verify.runs import VerificationRuns
from pipelines import from_dataset, random_access
from tapeline import models
from tests.choices import seldom

SMALL = ("--model=logistic", "--global_batch_size=16", "--validation_split=0.05", "--test_split=")


@pytest.fixture
def config(cache_dir, tmp_path):
    def made(*options):
        run_dir = f"--run_dir={tmp_path / 'run'}"
        return flags.parse([*SMALL, f"--cache_dir={cache_dir}", run_dir, *options])

    return made


@pytest.fixture(scope="module")
def runs_of(cache_dir, tmp_path_factory):
    """Yields a cached function from a task and options to `VerificationRuns`; closes these."""
    opened = []

    @functools.cache
    def made(task=None, *options) -> VerificationRuns:
        config = flags.parse([*SMALL, "--jit=off", f"--cache_dir={cache_dir}", *options])
        opened.append(VerificationRuns(config, task, str(tmp_path_factory.mktemp("runs")), bool))
        return opened[-1]

    yield made
    for runs in opened:
        runs.close()


def law(number, runs) -> Finding:
    """Checks one law, such as "L1", and returns the finding."""
    (check,) = (each.check for each in LAWS if each.number == number)
    return check(runs)


# Sound tasks


def test_sound_configuration_passes(config, tmp_path):
    lines: list[str] = []
    options = "--strategy=gpu", "--ema=0.9", "--jit=off"
    certificate = verify(config(*options), print_line=lines.append)
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


def test_residual_network(runs_of):
    """Batch norm is not reported as a fault, and neither is rounding that switches a ReLU."""
    runs = runs_of(None, "--model=verify_residual")
    found = law("L1", runs)
    assert (found.passed, runs.cross_example, runs.per_microbatch) == (None, True, False)
    assert found.found == "batch norm, or the like, sees its micro-batch"
    found = law("L7", runs)
    assert found.passed and "model/layers/2/offset, whose gradient is round" in found.found, found


def test_shards_give_same_bits(runs_of):
    """With shards, law L7 is checked bitwise, even for a metric that is a mean and not a count."""
    runs = runs_of(Squared, "--shards=2", "--virtual_devices=2")
    assert runs.topologies.configured.description == "2 virtual CPU devices, mirrored"
    found = law("L7", runs)
    assert found.passed and "the same bits in all" in found.found
    assert law("L8", runs).passed


def test_replicas_compared_without_xla(runs_of):
    """With `--jit=loop`, only the laws that need several devices are checked without XLA."""
    runs = runs_of(None, "--jit=loop", "--train_steps=9")
    heading = verification._heading(runs)
    assert "train  16 steps on the schedule of a run of 32, longer than this one of 9" in heading
    for number in ("L7", "L8"):
        found = law(number, runs)
        assert found.passed and "--jit=off, not loop" in found.done
    found = law("L2", runs)
    assert found.passed and "replica 2 of 2) with --jit=off, not loop" in found.done


class WithVariable(Classification):
    """Classification with a variable that its steps read."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(1.5, trainable=False)

    def __call__(self, model, batch, context):
        output = super().__call__(model, batch, context)
        return output._replace(losses=output.losses * self.factor)


def test_replicas_compared_with_xla(runs_of):
    """With `--jit=step` on two devices, the laws are checked of the step that XLA compiles."""
    runs = runs_of(WithVariable, "--jit=step", "--virtual_devices=2")
    for number in ("L2", "L7", "L8"):
        found = law(number, runs)
        assert found.passed and "jit" not in found.done, found
    assert {parts.jit for parts in runs.built} == {"step"}


def test_written_variable_of_replicas(runs_of):
    """A variable of a task that the steps write has the name in the task, once for all devices."""
    runs = runs_of(lambda: CountsItsCalls(), "--jit=step", "--virtual_devices=2")
    found = law("L5", runs)
    assert found.passed is False and "steps write calls, not in the state" in found.found


def test_automatic_xla_in_bfloat16(runs_of):
    """Automatically chosen XLA in bfloat16 does not make verification fail."""
    found = law("L7", runs_of(None, "--jit=auto", "--precision=mixed_bfloat16", "--optimizer=lion"))
    assert found.passed and "--jit=off, not auto" in found.done, found


@models.register("verify_residual")
def verify_residual(outputs):
    """Returns a network with ReLUs, in which one batch norm has an offset of gradient 0.

    Only a linear convolution is between that batch norm and the last one, which subtracts the mean.
    So the offset has no effect, and its gradient consists of rounding errors.
    """
    branch = models.BatchNorm(), models.Activation("relu"), models.Convolution(4, padding="SAME")
    bottleneck = models.BatchNorm(), models.Convolution(6, 1, use_bias=False), models.BatchNorm()
    layers = models.Convolution(4), models.Residual(*branch), *bottleneck
    end = models.Activation("relu"), models.GlobalAveragePool(), models.Dense(outputs.shape[0])
    return [*layers, *end]


class Squared(Task):
    """A regression task on one-hot labels, whose metric is a mean and not a count."""

    metrics = {"error": Mean()}  # noqa: RUF012

    def __call__(self, model, batch, context):
        wanted = tf.one_hot(batch.targets, 10)
        error = tf.reduce_mean((model(batch.inputs, context) - wanted) ** 2, axis=-1)
        return TaskOutput(error, {"error": (error,)})


# Broken laws


class Changed(Classification):
    """Classification whose losses are replaced by those that `changed` returns."""

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
    """`SumsItsMetric` with values multiplied by 1e-8, which round to the integer 0."""

    def __call__(self, model, batch, context):
        output = super().__call__(model, batch, context)
        return output._replace(metrics={"right": (output.metrics["right"][0] * 1e-8,)})


class PutsOff(Changed):
    """Classification with losses scaled by a number that any rounding of the weights changes."""

    def changed(self, losses, model, context):
        weights = [tf.cast(each, tf.float64) for each in model.trainable_variables]
        total = tf.add_n([tf.reduce_sum(each**2) for each in weights])
        return losses * (1 + 0.5 * tf.cast(tf.stop_gradient(tf.sin(1e9 * total)), losses.dtype))


class MagnifiesRounding(Changed):
    """Classification whose losses are multiplied by a function of their sum.

    The function magnifies the sum's rounding error, which depends on the topology, 200-fold.
    """

    def changed(self, losses, model, context):
        (total,) = context.all_reduce([tf.reduce_sum(losses)])
        return losses * (1 + 0.5 * tf.stop_gradient(tf.sin(200 * total)))


# A task given as an object, not as a class, is copied: its state must not affect the verdict.
BROKEN = {
    DrawsHiddenNumbers: (["L3"], "draws by RandomUniform"),
    DrawsInPython: (["L3", "L6"], "tensors differ"),
    CountsItsCalls(): (["L5", "L1", "L7"], "steps write calls, not in the state"),
    AssignsInThePass: (["L2", "L1"], "inf changed model/layers/1/bias"),
    LooksAtItsPortion: (["L1", "L7", "L8"], "losses of rows"),
    CountsInPython(): (["L6", "L1", "L7", "L8"], "by a number of Python's"),
    KnowsItsReplica: (["L7", "L8"], "gradient norm"),
    SumsItsMetric: (["L8"], "right"),
    SumsItsSmallMetric: (["L8"], "right"),
}


@pytest.fixture(scope="module")
def certificate_of(cache_dir):
    """Returns a cached function from a task to its certificate."""

    @functools.cache
    def made(task) -> Certificate:
        return verify(flags.parse([*SMALL, "--jit=off", f"--cache_dir={cache_dir}"]), task)

    return made


def name_of(task) -> str:
    return task.__name__ if isinstance(task, type) else type(task).__name__


# Others break the same law; all laws are checked of the last one.
ALIKE = DrawsInPython, SumsItsSmallMetric, KnowsItsReplica, DrawsHiddenNumbers


@pytest.mark.parametrize("task", [task for task in BROKEN if task not in ALIKE], ids=name_of)
def test_names_broken_law(runs_of, task):
    (root, *_), words = BROKEN[task]
    found = law(root, runs_of(task))
    assert found.passed is False and words in found.found, found


@pytest.mark.parametrize(
    "task", [t if t is DrawsHiddenNumbers else seldom(t) for t in BROKEN], ids=name_of
)
def test_root_cause_is_named(certificate_of, task):
    broken, words = BROKEN[task]
    certificate = certificate_of(task)
    assert certificate.broken == broken, certificate.summary
    assert certificate.summary.startswith(f"FAIL {broken[0]} ")
    assert words in certificate[broken[0]].found
    for number in broken[1:]:
        assert number in certificate.summary.split("also broken: ")[1]


def test_irreproducible_run(certificate_of):
    """If two identical runs differ (L3), the laws that compare runs are not checked."""
    verdicts = certificate_of(DrawsHiddenNumbers).verdicts
    left_open = {verdict.law for verdict in verdicts if verdict.passed is None}
    assert left_open == {"L1", "L5", "L7", "L8"}


@pytest.mark.parametrize(
    ("task", "words"),
    {
        PutsOff: "each from the same state; over all steps rounding errors grew to",
        MagnifiesRounding: "changes a step by",
    }.items(),
)
def test_rounding_that_grows_is_no_fault(runs_of, task, words):
    """If rounding errors make runs diverge, L7 compares single steps, and passes."""
    found = law("L7", runs_of(task))
    assert found.passed and words in found.found, found


@pytest.mark.parametrize(
    ("steps", "changes", "passed"),
    [
        ({"a": 1e-3, "b": 0}, {"a": 2e-4, "b": 0}, True),
        ({"a": 3e-3, "b": 0}, {"a": 2e-4, "b": 0}, False),
        (
            {"a": 1.0, "b": 0, "c": 0},
            {"a": 0.9, "b": 0, "c": 0},
            True,
        ),  # the gradient of a is noise
        ({"a": 1.0, "b": 1e-3, "c": 0}, {"a": 0.9, "b": 1e-6, "c": 0}, False),
        ({"a": 1.0, "b": 1.0, "c": 0}, {"a": 0.9, "b": 0.9, "c": 0}, False),  # those of most are
        ({"loss": 1.0, "b": 0, "c": 0}, {"loss": 0.9, "b": 0, "c": 0}, False),
        ({"a": 1e-3}, {}, False),
    ],
)
def test_what_rounding_explains(steps, changes, passed):
    given = ([Difference(*each, 1e-5) for each in found.items()] for found in (steps, changes))
    assert l7_topology._explained("", "", *given).passed == passed


@pytest.mark.parametrize(
    ("precision", "factor", "passed"),
    [
        ("mixed_float16", 2.0, True),
        ("mixed_float16", 0.01, False),
        seldom("float32", 2.0, False),
    ],
)
def test_rounding_of_one_device(runs_of, monkeypatch, precision, factor, passed):
    """Beyond the bounds, L7 compares the errors relative to float32, in a 16-bit precision only."""
    monkeypatch.setattr(l7_topology, "tensors", lambda *_: [Difference("a", 1.0, 1e-9)])
    monkeypatch.setattr(rounding_errors, "FACTOR", factor)
    monkeypatch.setattr(bounds, "bound", lambda *_: 0.0)
    found = law("L7", runs_of(None, "--model=law_norm", "--ema=0.9", f"--precision={precision}"))
    assert found.passed == passed and found.passed == ("relative to float32" in found.found)


# Models


class Linear(tf.Module):
    """A user's linear model, whose variables are created without names."""

    def __init__(self, features, classes):
        super().__init__()
        self.weights = [tf.Variable(tf.zeros([features, classes])), tf.Variable(tf.zeros(classes))]

    def __call__(self, inputs, context):
        rows = tf.reshape(inputs, [-1, self.weights[0].shape[0]])
        return rows @ self.weights[0] + self.weights[1]


class HasGenerator(Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.generator = tf.random.Generator.from_seed(1)

    def __call__(self, inputs, context):
        return super().__call__(inputs + self.generator.uniform(tf.shape(inputs)), context)


class CountsItself(Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.count = tf.Variable(0.0, trainable=False)

    def __call__(self, inputs, context):
        if context.training:
            self.count.assign_add(1.0)
        return super().__call__(inputs, context)


class BranchesOnShape(Linear):
    def __call__(self, inputs, context):
        return super().__call__(inputs / 2 if inputs.shape[0] > 4 else inputs, context)


class NormalizesInTraining(Linear):
    """A linear model that subtracts the mean of a replica's rows in training, undeclared."""

    def __call__(self, inputs, context):
        mean = tf.reduce_mean(inputs, 0) if context.training else 0.0
        return super().__call__(inputs - mean, context)


class DrawsForMicroBatch(Linear):
    """A linear model that adds noise in training, drawn per micro-batch, without declaring that."""

    def __call__(self, inputs, context):
        if context.training:
            inputs += tf.random.stateless_normal(tf.shape(inputs), context.seed("noise"))
        return super().__call__(inputs, context)


MODELS = {
    HasGenerator: ("L3", "draws by RngReadAndSkip"),
    CountsItself: ("L2", "inf changed model/count"),
    BranchesOnShape: ("L1", "losses of rows"),
    NormalizesInTraining: ("L7", "after one step from the same state"),
}


def registered(kind) -> str:
    """Registers a model class if it is not registered yet; returns the option that selects it."""
    name = f"verify_{kind.__name__.lower()}"
    if name not in NETWORKS:

        @models.register(name)
        def made(inputs, outputs):
            return kind(inputs.shape.num_elements(), outputs.shape[0])

    return f"--model={name}"


@pytest.mark.parametrize("kind", MODELS, ids=name_of)
def test_fault_of_a_model(runs_of, kind):
    number, words = MODELS[kind]
    found = law(number, runs_of(None, registered(kind)))
    assert found.passed is False and words in found.found, found


def test_randomness_is_found(runs_of):
    """Verification detects that a model draws other random numbers for other micro-batches."""
    runs = runs_of(None, registered(DrawsForMicroBatch))
    assert (runs.per_microbatch, runs.cross_example) == (True, False)
    for number in ("L1", "L7"):
        found = law(number, runs)
        assert found.passed is None and "random numbers of the model" in found.found


def test_crossing_is_found(runs_of):
    """Verification detects that a model's outputs for an example depend on other examples."""
    runs = runs_of(None, registered(NormalizesInTraining))
    assert runs.cross_example and law("L1", runs).passed is None


# Sources


def pipeline_of(random):
    """Returns a source that reads a tf.data pipeline, whose order is drawn from a generator.

    Args:
      random: returns a NumPy generator for a seed.
    """

    def make(seed, epoch):
        order = random([seed, epoch]).permutation(100)
        features = np.stack([order, -order], 1).astype(np.float32)
        return tf.data.Dataset.from_tensor_slices((features, order % 2))

    return from_dataset(make, examples=100, version="1", class_names=2)


def function_of(random):
    """Returns a source that reads single examples by a function, which draws the values.

    Args:
      random: returns a NumPy generator for a seed.
    """

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
    broken = certificate_of(DrawsHiddenNumbers)
    monkeypatch.setattr(command, "verify", lambda config, **told: broken)
    if exists:
        (tmp_path / "run").mkdir()
    assert command.run(config()) == 1
    *_, text, last = capsys.readouterr().out.splitlines()
    assert last == broken.summary and last.startswith("FAIL L3 ")
    assert json.loads(text)["broken"] == ["L3"]
    written = tmp_path / "run" / "verify.json"
    assert written.exists() == exists
    if exists:
        assert json.loads(written.read_text()) == json.loads(text)
        assert [path.name for path in written.parent.iterdir()] == ["verify.json"]


def test_bits_that_are_given_up_are_not_checked(runs_of):
    """With `--deterministic=no`, a law of equal bits is neither kept nor broken by the bits."""
    runs = runs_of(None, "--deterministic=no", "--shards=2", "--virtual_devices=2")
    for number in ("L3", "L5", "L7"):
        found = law(number, runs)
        assert (found.passed, found.found) == (None, "not checked: --deterministic=no"), number
    for number in ("L1", "L2", "L4", "L8"):
        assert law(number, runs).passed
    assert "--deterministic=no gives up the same bits" in verification._heading(runs)
    found = law("L3", runs_of(DrawsHiddenNumbers, "--deterministic=no"))
    assert found.passed is False and "draws by RandomUniform" in found.found
    found = law("L5", runs_of(CountsItsCalls(), "--deterministic=no"))
    assert found.passed is False and "calls, not in the state" in found.found
