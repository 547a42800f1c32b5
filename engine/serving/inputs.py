"""Inputs of `--mode=predict`: reads images from files, directories and glob patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import pipelines


class InputFile(NamedTuple):
    """An image to predict, or the reason why it cannot be read.

    Attributes:
      name: path for display, with an index if the file holds several images.
      image: image [H, W, C] in the data set's format; None: it cannot be read.
      error: short reason why it cannot be read; empty: it can.
    """

    name: str
    image: np.ndarray | None
    error: str = ""


def files(inputs: str) -> list[str]:
    """Returns the paths that `--inputs` names, in order, without duplicates.

    A directory stands for all files below it, except hidden ones.

    Raises:
      ValueError: if `inputs` is empty, or one of its items matches no file.
    """
    found: list[str] = []
    for part in (part.strip() for part in inputs.split(",")):
        if not part:
            continue
        path = os.path.expanduser(part)
        if os.path.isdir(path):
            below = glob.iglob(os.path.join(glob.escape(path), "**"), recursive=True)
            some = sorted(each for each in below if os.path.isfile(each))  # glob skips hidden files
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


def images(paths: list[str], want: pipelines.ImageSpec) -> Iterator[InputFile]:
    """Reads image files; yields each image, or the error if a file cannot be read.

    Args:
      paths: paths of pictures and .npy files.
      want: properties of the images to convert to.
    """
    for path in paths:
        try:
            if path.lower().endswith(".npy"):
                several = pipelines.read_array(path, want)
                for number, image in enumerate(several):
                    yield InputFile(f"{path}[{number}]" if len(several) > 1 else path, image)
            else:
                yield InputFile(path, pipelines.read_picture(path, want))
        except ValueError as error:
            yield InputFile(path, None, str(error))
