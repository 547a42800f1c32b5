"""Inputs of `--mode=predict`: reads images from files, directories and glob patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import pipelines


class InputFile(NamedTuple):
    """An image to predict, or the reason why it cannot be read."""

    name: str  # path to display, with an index if the file holds several images
    image: np.ndarray | None  # [H, W, C] in the data set's format; None: it cannot be read
    error: str = ""


def files(inputs: str) -> list[str]:
    """Returns the paths that `inputs`, separated by commas, names, in order, without duplicates.

    An item is a file, a glob pattern, or a directory: all files below it, except hidden ones.
    Raises ValueError if an item matches no file, or if there are no items.
    """
    paths: list[str] = []
    for item in filter(None, map(str.strip, inputs.split(","))):
        path = os.path.expanduser(item)
        is_directory = os.path.isdir(path)
        if os.path.exists(path) and not is_directory:
            paths.append(path)
            continue
        # A pattern does not match hidden files.
        pattern = os.path.join(glob.escape(path), "**") if is_directory else path
        matches = sorted(filter(os.path.isfile, glob.iglob(pattern, recursive=True)))
        if not matches:
            raise ValueError(f"--inputs: there is no {'file in ' if is_directory else ''}{item}")
        paths += matches
    if not paths:
        raise ValueError("--inputs is empty: give files, folders or patterns, or give --split")
    return list(dict.fromkeys(paths))


def images(paths: list[str], spec: pipelines.ImageSpec) -> Iterator[InputFile]:
    """Reads pictures and .npy files; yields each image, or an error for an unreadable file."""
    for path in paths:
        try:
            if path.lower().endswith(".npy"):
                several = pipelines.read_array(path, spec)
                for index, image in enumerate(several):
                    yield InputFile(f"{path}[{index}]" if len(several) > 1 else path, image)
            else:
                yield InputFile(path, pipelines.read_picture(path, spec))
        except ValueError as error:
            yield InputFile(path, None, str(error))
