"""Checks of an example through the command line: training, resumption, devices, export and more."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.checkpoint.catalog import list_checkpoints, newest_checkpoint, read, read_metadata
from tests.cli.command import HANG, REPOSITORY, Command, Run, Warm
from tests.examples.jobs import SWITCHING, Job, make_pictures

# Decoded inputs of the test split, from a process that opens the data set as training does.
INPUTS = """
import sys
from engine.runtime.startup import import_tensorflow
import_tensorflow()
import numpy as np, tensorflow as tf
import pipelines
from engine.assembly import data
from engine.config import flags
out, *arguments = sys.argv[1:]
config = flags.parse(arguments)
source = data.open_source(config)
numbers = np.arange(len(source.test))
found = pipelines.read_examples(source, source.test, numbers, data.cache_dir(config))
np.savez(out, *tf.nest.flatten(found.inputs))
"""

SERVED = """
import sys
import numpy as np, tensorflow as tf
folder, given, out = sys.argv[1:]
given = np.load(given)
loaded = tf.saved_model.load(folder)
serve = loaded.signatures["serving_default"]
names = sorted(serve.structured_input_signature[1])
found = serve(**{name: tf.constant(given[f"arr_{i}"]) for i, name in enumerate(names)})
found = {name: each.numpy() for name, each in found.items()}
np.savez(out, **{k: v.astype("S") if v.dtype == object else v for k, v in found.items()})
ours = {"tapeline", "engine", "pipelines"} & {name.split(".")[0] for name in sys.modules}
assert not ours, ours
"""


class NotKilledError(AssertionError):
    """Error of a run that could not be killed inside an epoch in five attempts."""


class Matrix:
    """The checks of one example; `CHECKS` has the methods by name.

    A check returns text for the table of results, often "", and raises AssertionError if it fails.

    Args:
      job: the example.
      command: provides the cache directory.
      warm: runs the commands.
      place: directory of the runs.
    """

    def __init__(self, job: Job, command: Command, warm: Warm, place: Path) -> None:
        self.job, self._command, self._warm, self._place = job, command, warm, place
        pictures = place / "pictures"
        if job.name == "folder" and not pictures.exists():
            make_pictures(pictures)
        self.options = job.small(pictures)

    @functools.cached_property
    def whole(self) -> Run:
        """The uninterrupted training run, which several checks use."""
        return self._train("whole")

    def trains(self) -> str:
        """Checks that the test loss of the run is finite."""
        test = self.whole.result["test"]
        assert np.isfinite(test["loss"]), test
        return ""

    def resumes(self) -> str:
        """Checks that a run killed inside an epoch and resumed has bitwise equal weights and rows.

        Returns the step of the checkpoint from which the run resumed.
        """
        run_dir = self._place / "killed"
        for _ in range(5):  # the signal may come too late, or at the end of an epoch
            shutil.rmtree(run_dir, ignore_errors=True)
            with self._warm.started(f"--run_dir={run_dir}", *self.options) as process:
                end = time.monotonic() + HANG
                while process.poll() is None and time.monotonic() < end:
                    time.sleep(0.005)
                    if _saved_step(run_dir) % self._steps_per_epoch:
                        process.send_signal(signal.SIGKILL)
                        process.wait()
            saved = _saved_step(run_dir)
            finished = (run_dir / "result.json").exists()
            if saved % self._steps_per_epoch and not finished:
                break
        else:
            raise NotKilledError("could not be killed in mid-epoch")
        resumed = self._train("killed")
        assert f"resumed at step {saved:,}" in resumed.outcome.out, resumed.outcome.said()
        assert resumed.result["weights_sha256"] == self.whole.result["weights_sha256"]
        assert resumed.curves == self.whole.curves
        return f"at step {saved}"

    def agrees(self) -> str:
        """Checks that a step on two virtual devices gives the state of a step on one device.

        Returns the largest relative difference of a tensor, which may be up to 1e-5.
        """
        if self.job.name in SWITCHING:
            return "not compared"
        one = self._state("one", "--virtual_devices=1")
        two = self._state("two", "--virtual_devices=2")
        assert one.keys() == two.keys()
        worst, name = max((_apart(one[name], two[name]), name) for name in one)
        assert worst <= 1e-5, f"{name} is {worst:.1e} apart"
        return f"{worst:.0e}"

    def shards(self) -> str:
        """Checks that `--shards=2` gives bitwise equal weights on one and on two devices."""
        runs = [
            self._train(f"shards{n}", "--shards=2", "--strategy=cpu", f"--virtual_devices={n}")
            for n in (1, 2)
        ]
        one, two = (run.result["weights_sha256"] for run in runs)
        assert one == two
        return ""

    def evaluates(self) -> str:
        """Checks that `--mode=evaluate` prints the test metrics of result.json."""
        out = self._mode("evaluate")
        assert json.loads(out.splitlines()[-1])["test"] == self.whole.result["test"]
        return ""

    def predicts(self) -> str:
        """Checks that `--mode=predict` predicts each example of the test split."""
        summary = json.loads(self._predicted.splitlines()[-1])
        expected = self.whole.result["test"]["examples"]
        assert summary["predicted"] == expected and not summary["failed"], summary
        return ""

    def exports(self) -> str:
        """Checks that the exported model gives the predictions of `--mode=predict`.

        A process loads the model with TensorFlow only, without the engine.
        """
        self._mode("export")
        place, whole = self._place, self.whole.run_dir
        _python(INPUTS, place, str(place / "inputs.npz"), *self._options_of_data, path=REPOSITORY)
        _python(SERVED, place, str(whole / "export"), "inputs.npz", "served.npz")
        served = dict(np.load(place / "served.npz"))
        assert self._predicted
        if (folder := place / "predictions").joinpath("predictions.npz").exists():
            predicted = dict(np.load(folder / "predictions.npz"))
            tolerance = 0.0
        else:
            names = json.loads((whole / "export" / "about.json").read_text())["class_names"]
            predicted, tolerance = _of_classes(folder, names), 6e-7  # 6 decimals are written
        assert predicted.keys() <= served.keys()
        for name, wanted in predicted.items():
            assert served[name].shape == wanted.shape, name
            if np.issubdtype(wanted.dtype, np.floating):
                close = np.allclose(served[name], wanted, rtol=1e-6, atol=tolerance)
                assert close, f"{name}: {np.abs(served[name] - wanted).max():.1e} apart"
            else:
                assert (served[name] == wanted).all(), name
        return ""

    def reports(self) -> str:
        """Checks that `--mode=report` writes report.html, of more than 10,000 bytes."""
        self._mode("report")
        assert (self.whole.run_dir / "report.html").stat().st_size > 10_000
        return ""

    def verifies(self) -> str:
        """Checks that `--mode=verify` finds no broken law; names the laws that are not compared."""
        options = [*self.options, *(["--shards=2"] if self.job.name in SWITCHING else [])]
        outcome = self._warm.run("--mode=verify", f"--run_dir={self._place / 'no'}", *options)
        laws = [line for line in outcome.out.splitlines() if line.startswith("L")]
        broken = [line for line in laws if "FAIL" in line]
        assert outcome.status == 0 and not broken, "; ".join(broken) or outcome.said()
        skipped = [line.split()[0] for line in laws if "not compared" in line]
        return f"{', '.join(skipped)} not compared" if skipped else ""

    def inspects(self) -> str:
        """Checks that `--mode=inspect` finds nothing and counts the parameters of the checkpoint.

        Returns the number of parameters.
        """
        page = f"--inspect_path={self._place / 'inspect.html'}"
        run = "--mode=inspect", "--inspect_steps=10", page, f"--run_dir={self._place / 'no'}"
        outcome = self._warm.run(*run, *self.options)
        assert outcome.status == 0, outcome.said()
        path = newest_checkpoint(str(self.whole.run_dir))
        assert path is not None
        arrays = read(path).arrays
        count = sum(array.size for name, array in arrays.items() if name.startswith("model/"))
        totals = re.findall(r"^all +([\d,]+)$", outcome.out, re.MULTILINE)
        assert totals == [f"{count:,}"], f"{totals}, and the checkpoint has {count:,}"
        return f"{count:,} parameters"

    def benchmarks(self) -> str:
        """Checks that `--mode=benchmark` measures 20 steps without an error."""
        run = "--mode=benchmark", "--benchmark_steps=20", f"--run_dir={self._place / 'no'}"
        outcome = self._warm.run(*run, *self.options)
        assert outcome.status == 0, outcome.said()
        return ""

    def bfloat16(self) -> str:
        """Checks that mixed_bfloat16 reaches about the loss of float32; returns both losses.

        The loss must be below 1.2 times that of float32 plus 0.1. It is the test loss; for the
        networks whose batch norms have not settled after so few steps, in any precision, it is the
        mean training loss of the last epoch.
        """
        settled = self.job.name not in SWITCHING
        both = self._train("bfloat16", "--precision=mixed_bfloat16"), self.whole
        loss, whole = (
            run.result["test"]["loss"] if settled else _last_training_loss(run) for run in both
        )
        assert np.isfinite(loss) and loss < 1.2 * whole + 0.1, (loss, whole)
        return f"{'' if settled else 'training '}loss {loss:.2f}, float32 {whole:.2f}"

    @functools.cached_property
    def _predicted(self) -> str:
        folder = f"--predictions={self._place / 'predictions'}"
        return self._mode("predict", f"--split={self._test_split}", "--top_k=1000", folder)

    @property
    def _test_split(self) -> str:
        """The split that the runs are tested on; "test" if no option names one."""
        given = [each for each in self.options if each.startswith("--test_split=")]
        return given[-1].partition("=")[2] if given else "test"

    @property
    def _steps_per_epoch(self) -> int:
        ends = [row["step"] for row in self.whole.rows("validation")]
        return min(ends)

    @property
    def _options_of_data(self) -> list[str]:
        return [*self.options, f"--cache_dir={self._command.cache_dir}"]

    def _train(self, name: str, *options: str) -> Run:
        return self._warm.train(self._place / name, *self.options, *options)

    def _mode(self, mode: str, *options: str) -> str:
        run = f"--run_dir={self.whole.run_dir}"
        outcome = self._warm.run(f"--mode={mode}", run, *options)
        assert outcome.status == 0 and outcome.err == "", outcome.said()
        return outcome.out

    def _state(self, name: str, *options: str) -> dict[str, np.ndarray]:
        """Trains one step; returns the weights, slots and EMA in the checkpoint, by name."""
        one_step = "--train_steps=1", "--strategy=cpu", *options
        run = self._train(name, *one_step)
        arrays = read(list_checkpoints(str(run.run_dir / "checkpoints"))[-1]).arrays
        return {n: v for n, v in arrays.items() if n.startswith(("model/", "optimizer/", "ema/"))}


CHECKS: dict[str, Callable[[Matrix], str]] = {
    "train": Matrix.trains,
    "kill, resume": Matrix.resumes,
    "step, 2 devices": Matrix.agrees,
    "shards, 2 devices": Matrix.shards,
    "evaluate": Matrix.evaluates,
    "predict": Matrix.predicts,
    "export": Matrix.exports,
    "report": Matrix.reports,
    "verify": Matrix.verifies,
    "benchmark": Matrix.benchmarks,
    "inspect": Matrix.inspects,
    "bfloat16": Matrix.bfloat16,
}


def _saved_step(run_dir: Path) -> int:
    """Returns the step of a run's newest checkpoint; 0 if there is none, or if it was deleted."""
    try:
        path = newest_checkpoint(str(run_dir))
        return read_metadata(path)["step"] if path else 0
    except OSError:  # deleted since it was listed
        return 0


def _last_training_loss(run: Run) -> float:
    """Returns the mean of the training losses that a run logged in its last epoch."""
    rows = run.rows("train")
    return float(np.mean([row["loss"] for row in rows if row["epoch"] == rows[-1]["epoch"]]))


def _apart(one: np.ndarray, two: np.ndarray) -> float:
    """Returns the norm of the difference divided by the larger norm; 0 if both norms are 0."""
    one, two = one.astype(np.float64), two.astype(np.float64)
    largest = max(np.linalg.norm(one), np.linalg.norm(two))
    return float(np.linalg.norm(one - two) / largest) if largest else 0.0


def _python(program: str, place: Path, *arguments: str, path: Path | str = "") -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _of_classes(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Returns the predictions in the predictions.json of a folder.

    Args:
      folder: the folder.
      names: class names, in the order of the columns.

    Returns:
      "probabilities", float64 [examples, classes], and "labels", class names as bytes [examples].
    """
    listed = json.loads((folder / "predictions.json").read_text())["predictions"]
    scores = [{one["class"]: one["probability"] for one in each["top"]} for each in listed]
    return {
        "probabilities": np.array([[score[name] for name in names] for score in scores]),
        "labels": np.array([each["class"].encode() for each in listed]),
    }
