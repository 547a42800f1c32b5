"""An optimizer, schedule, network, metric and augmentation from one file of a user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.assembly import data
from engine.assembly.registry import SOURCES
from engine.config import flags
from engine.config.registry import Registry, parameters

REPOSITORY = Path(__file__).parents[2]

OWN_FILE = """
import sys

import tensorflow as tf

import tapeline as tl


@tl.optimizer
class SignDescent(tf.Module):
    def __init__(self, momentum):
        super().__init__()
        self.momentum = momentum

    def create_slots(self, variables):
        self.means = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]

    def apply(self, gradients, variables, learning_rate, update):
        for gradient, variable, mean in zip(gradients, variables, self.means):
            mean.assign(self.momentum * mean + gradient)
            variable.assign_sub(tf.cast(learning_rate, tf.float32) * tf.sign(mean))


@tl.schedule
def sawtooth(decay_steps):
    return lambda step: 1.0 - step % decay_steps / (2 * decay_steps)


@tl.model
def wide(outputs, hidden):
    units = outputs.shape[0]
    return [tl.models.Flatten(), tl.models.Dense(hidden[0], "relu"), tl.models.Dense(units)]


@tl.metric
def second_guess(labels, logits):
    return tf.cast(tf.math.in_top_k(labels, logits, 2), tf.float32)


@tl.register_augmentation("brightness", numbers=1, default=0.2, maximum=1.0)
def brightness(images, numbers, strength):
    return images * (1 + strength * (2 * numbers[:, :, tf.newaxis, tf.newaxis] - 1))


@tl.view
def upside_down(images):
    return images[:, ::-1]


if __name__ == "__main__":
    sys.exit(tl.main(sys.argv[1:]))
"""

OPTIONS = (
    "--optimizer=sign_descent",
    "--schedule=sawtooth",
    "--decay_steps=5",
    "--model=wide",
    "--hidden=16",
    "--metrics=accuracy,second_guess",
    "--monitor=validation_second_guess",
    "--augment=brightness:0.5,shift:1",
    "--evaluation_views=upside_down",
    "--learning_rate=0.003",
)


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder outside the repository with the file own.py; returns the process."""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    (folder / "own.py").write_text(OWN_FILE)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_file_adds_each_part(tmp_path: Path):
    """A run uses all parts that a file registers; its metric is monitored and reported."""
    done = _python(tmp_path, "own.py", *OPTIONS, "--epochs=2", "--run_dir=run")
    assert done.returncode == 0, done.stderr
    assert "second_guess " in done.stdout and "validation_second_guess" in done.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["best"]["metric"] == "validation_second_guess"
    assert result["test"]["accuracy"] < result["test"]["second_guess"] <= 1
    assert result["traces"]["train"] == 1 and result["evaluation_views"] == "upside_down"
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">second_guess<" in page
    listed = _python(tmp_path, "own.py", "--help").stdout
    for name in ("sign_descent", "sawtooth", "wide", "second_guess", "brightness", "upside_down"):
        assert name in listed


MISSPELLED = {
    "--optimizer=sign_decent": "'sign_descent'",
    "--model=wid": "'wide'",
    "--metrics=second_gues": "'second_guess'",
    "--monitor=validation_second_gues": "'validation_second_guess'",
    "--augment=brightnes": "'brightness'",
    "--evaluation_views=upsidedown": "'upside_down'",
}


def test_misspelled_names_of_own_parts(tmp_path: Path):
    """A name that is close to a registered one is refused with a hint; nothing is written."""
    commands = [[*OPTIONS, option, "--run_dir=run"] for option in MISSPELLED]
    program = f"import own\nfor each in {commands}:\n    assert own.tl.main(each) == 2"
    done = _python(tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for (option, hint), line in zip(MISSPELLED.items(), lines, strict=True):
        assert option in line and f"did you mean {hint}" in line
    assert not (tmp_path / "run").exists()


def test_registry():
    """A registry imports built-in entries on use, and names a registered class in snake case."""
    registry = Registry("shape", {"path": "pathlib:Path"})
    assert registry["path"] is Path

    @registry.register
    class TwoWords:
        def __init__(self, side: int) -> None: ...

    assert list(registry) == ["path", "two_words"] and registry["two_words"] is TwoWords
    assert parameters(TwoWords) == {"side"}
    with pytest.raises(ValueError, match="a shape named 'path' is registered already"):
        registry.register("path")
    with pytest.raises(ValueError, match="identifier, got 'two words'"):
        registry.register("two words")
    with pytest.raises(ValueError, match=r"unknown shape 'pat'; did you mean 'path'. known: path,"):
        registry["pat"]


def test_metrics_are_named_once():
    with pytest.raises(ValueError, match="--metrics=accuracy,accuracy: lists a name twice"):
        flags.parse(["--metrics=accuracy,accuracy"])


def test_registered_sources_are_listed(monkeypatch, tmp_path):
    """The help of --dataset and the error for an unknown name list the user's own sources."""
    # Without those that files imported by other tests have registered.
    own = {name: entry for name, entry in SOURCES._entries.items() if name not in SOURCES.added}
    monkeypatch.setattr(SOURCES, "_entries", {**own, "houses": lambda: None})
    assert "; or the embedded digits; registered: houses" in flags.help_text()
    unknown = flags.parse(["--dataset=house", f"--data_dir={tmp_path}"])
    with pytest.raises(ValueError, match=r"did you mean houses.*, or one of your own: houses$"):
        data.open_source(unknown)
