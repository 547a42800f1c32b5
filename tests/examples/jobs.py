"""Commands of the examples, read from their docstrings, with options that make the runs short."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from tests import prepared
from tests.cli.command import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
# Steps that are few, with log points and checkpoints within the epochs.
_SMALL = ("--epochs=3", "--log_every=3", "--checkpoint_every=7", "--restore_best=false")

# Deep networks with batch norms of few values, where rounding switches units in the first step:
# devices are compared with --shards alone.
SWITCHING = "MobileNetV2", "EfficientNetB0"

# Data sets that examples download, by file.
DOWNLOADED = {
    "character_model": "tiny_shakespeare",
    "keras_applications": "cifar10",
    "wide_resnet": "cifar10",
}

# Options by job: 20 to 60 steps an epoch. The others are those of the docstring.
_CIFAR10 = (
    "--global_batch_size=16",
    "--train_split=train[:320]",
    "--validation_split=train[320:384]",
    "--test_split=test[:64]",
)
SMALL = {
    "MobileNetV2": _CIFAR10,
    "EfficientNetB0": _CIFAR10,
    "wide_resnet": (*_CIFAR10, "--model.depth=10", "--model.width=1", "--model.dropout=0.3"),
    "u_net": (
        "--global_batch_size=8",
        "--dataset.examples=300",
        "--dataset.side=16",
        "--model.width=4",
        "--model.levels=2",
    ),
    "text_encoder": ("--global_batch_size=128", "--model.width=16", "--model.blocks=1"),
    "keras_model": ("--global_batch_size=32", "--model.width=4"),
    "tf_module": ("--global_batch_size=32",),
    "arrays": ("--global_batch_size=16",),
    "regression": ("--global_batch_size=8",),
    "multi_label": ("--global_batch_size=16", "--dataset.examples=600"),
    "segmentation": (
        "--global_batch_size=8",
        "--dataset.examples=300",
        "--dataset.side=20",
        "--model.width=4",
    ),
    "text_classification": ("--global_batch_size=128", "--model.features=32"),
    "own_training": ("--global_batch_size=32", "--schedule.period=40"),
    "character_model": (
        "--global_batch_size=12",
        "--train_steps=0",
        "--train_split=train[:400]",
        "--dataset.context=16",
        "--model.layers=1",
        "--model.width=32",
    ),
    "metrics": ("--global_batch_size=32",),
    "folder": ("--global_batch_size=8", "--image_size=16,16"),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A command of an example.

    Attributes:
      name: name of the example.
      file: path of the script or flagfile.
      arguments: options of the command, after those of the flagfile.
    """

    name: str
    file: Path
    arguments: tuple[str, ...]

    def small(self, pictures: Path) -> list[str]:
        """Returns the options of a short run.

        Args:
          pictures: folder with a subfolder of images for each class, which replaces PATH.
        """
        filled = {"DIRECTORY": str(prepared.data_dir()), "PATH": str(pictures)}
        given = [
            re.sub("DIRECTORY|PATH", lambda found: filled[found[0]], each)
            for each in self.arguments
        ]
        load = [] if self.file.suffix == ".flags" else [f"--load={self.file}"]
        return [*load, *given, *_SMALL, *SMALL[self.name]]

    @property
    def available(self) -> bool:
        """Whether the dataset is on this machine, if the example downloads it; otherwise True."""
        downloads = any("DIRECTORY" in each for each in self.arguments)
        return not downloads or bool(
            (folder := prepared.data_dir()) and (Path(folder) / DOWNLOADED[self.file.stem]).is_dir()
        )

    def value(self, option: str) -> str:
        """Returns the last value of an option in the command; "" if the option is not given."""
        given = [each for each in self.arguments if each.startswith(f"--{option}=")]
        return given[-1].partition("=")[2] if given else ""


def text_of(file: Path) -> str:
    """Returns the docstring of a script, or the comment at the start of a flagfile without "#"."""
    text = file.read_text()
    if file.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    lines = text.splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:end])


def jobs(file: Path) -> list[Job]:
    """Returns the jobs of a file in examples/, one for each command in its text.

    The name of a single job is that of the file. Several jobs have the names of their networks or
    models.
    """
    text = re.sub(r"\\\n", "", text_of(file))
    lines = re.findall(r"^ {4}(python .*)$", text, re.MULTILINE)
    found = [_job(file, line) for line in lines]
    if len(found) > 1:
        return [
            dataclasses.replace(each, name=each.value("model.network") or each.value("model"))
            for each in found
        ]
    return found


def _job(file: Path, line: str) -> Job:
    _, script, *arguments = shlex.split(line)
    relative = str(file.relative_to(REPOSITORY))
    assert script == ("run.py" if file.suffix == ".flags" else relative), line
    arguments = [each.replace(relative, str(file)) for each in arguments]
    if file.suffix == ".flags":  # so that the options that follow a flagfile override it
        lines = [each for each in file.read_text().splitlines() if each.startswith("--")]
        arguments = [*lines, *arguments]
    return Job(file.stem, file, tuple(arguments))


JOBS = {
    job.name: job
    for file in sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.flags")])
    for job in jobs(file)
}


def make_pictures(folder: Path) -> Path:
    """Writes 80 JPEGs of various sizes to a subfolder for each of 3 classes; returns `folder`."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "grey", "light")):
        (folder / name).mkdir(parents=True)
        for number in range(80):
            height, width = random.integers(20, 40, 2)
            noise = random.integers(0, 60, (height, width, 3))
            picture = Image.fromarray((noise + 90 * label).astype("uint8"))
            picture.save(folder / name / f"{number}.jpg")
    return folder
