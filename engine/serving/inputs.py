"""What is asked to be predicted: files, folders, patterns -> images, one after the other."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import pipelines


class Input(NamedTuple):
    """One picture that is to be predicted, or why it cannot be.

    name: for a person: a path, and the number in it where a file holds several.
    image: as the data set has them; None: it cannot be read.
    error: why, in a few words.
    """

    name: str
    image: np.ndarray | None
    error: str = ""


def files(inputs: str) -> list[str]:
    """Paths of what `--inputs` names, in its order; a folder stands for all files below it.

    Raises:
      ValueError: where a part of it names nothing.
    """
    found: list[str] = []
    for part in (part.strip() for part in inputs.split(",")):
        if not part:
            continue
        path = os.path.expanduser(part)
        if os.path.isdir(path):
            below = glob.iglob(os.path.join(glob.escape(path), "**"), recursive=True)
            some = sorted(each for each in below if os.path.isfile(each))  # none that are hidden
            if not some:
                raise ValueError(f"--inputs: there is no file in {part}")
        elif os.path.exists(path):
            some = [path]
        else:
            some = sorted(each for each in glob.glob(path, recursive=True) if os.path.isfile(each))
            if not some:
                raise ValueError(f"--inputs: there is no {part}")
        found += some
    if not found:
        raise ValueError("--inputs is empty: give files, folders or patterns, or give --split")
    return list(dict.fromkeys(found))


def images(paths: list[str], want: pipelines.Wanted) -> Iterator[Input]:
    """Every picture of some files; what cannot be read is named and does not end it."""
    for path in paths:
        try:
            if path.lower().endswith(".npy"):
                several = pipelines.read_array(path, want)
                for number, image in enumerate(several):
                    yield Input(f"{path}[{number}]" if len(several) > 1 else path, image)
            else:
                yield Input(path, pipelines.read_picture(path, want))
        except ValueError as error:
            yield Input(path, None, str(error))
