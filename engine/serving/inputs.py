"""Reads the inputs of `--mode=predict` from files, directories and glob patterns."""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import pipelines

# What NumPy raises for files that are damaged or hold something else than the inputs.
_UNREADABLE = (ValueError, OSError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile)


class InputFile(NamedTuple):
    """The inputs of an example to predict, or the reason why the file cannot be read."""

    name: str  # path to display, with an index if the file holds several examples
    inputs: Any  # nest of arrays, such as an image [H, W, C]; None: it cannot be read
    error: str = ""


def files(inputs: str) -> list[str]:
    """Returns the paths of the files that a comma-separated list names, without duplicates.

    An item of the list is a file, a glob pattern, or a directory, which stands for all files below
    the directory except hidden ones. The paths are in the order of the items; those of one item are
    sorted.

    Raises:
      ValueError: if an item matches no file, or if the list is empty.
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
    """Reads image files and .npy files; yields each image, or an error for an unusable file.

    The images have the network's input size, uint8 [height, width, C]. A .npy file holds one image
    or several.

    Args:
      paths: paths of the files.
      spec: format of the network's input images, to which images are converted.
    """
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


def arrays(paths: list[str], spec: Any) -> Iterator[InputFile]:
    """Reads .npy and .npz files; yields each example, or an error for an unusable file.

    A .npy file holds one array, [rows, ...], with an example per row. A .npz file holds an array
    for each key of `spec`; if `spec` is a single `tf.TensorSpec`, the first array is read.

    Args:
      paths: paths of the files.
      spec: `tf.TensorSpec` of an example's decoded inputs, or a dict of them.
    """
    for path in paths:
        try:
            nest = _read_arrays(path, spec)
        except _UNREADABLE as error:
            yield InputFile(path, None, " ".join(str(error).split())[:160])
            continue
        for row in range(len(tf.nest.flatten(nest)[0])):
            one = tf.nest.map_structure(lambda each: each[row], nest)  # noqa: B023
            yield InputFile(f"{path}[{row}]", one)


def _read_arrays(path: str, spec: Any) -> Any:
    """Reads a .npy or .npz file; returns a nest of arrays [rows, ...] with the dtypes of `spec`.

    Raises:
      ValueError: if the file is of another type, or its shapes do not fit `spec`.
      TypeError: if a dtype cannot be cast to that of `spec`, or the structure differs.
      KeyError: if an array of `spec` is missing.
      OSError, IndexError, EOFError, zipfile.BadZipFile: if the file is damaged or empty.
    """
    if not path.lower().endswith((".npy", ".npz")):
        raise ValueError("is neither .npy nor .npz, and the inputs are no images")
    nest: Any
    with open(path, "rb") as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            nest = content
        elif isinstance(spec, tf.TensorSpec):
            nest = content[content.files[0]]
        else:
            nest = {name: content[name] for name in spec}
    tf.nest.assert_same_structure(nest, spec, check_types=False)

    def converted(array: np.ndarray, leaf: tf.TensorSpec) -> np.ndarray:
        if not array.shape or not leaf.shape.is_compatible_with(array.shape[1:]):
            raise ValueError(
                f"has shape {array.shape}, expected rows of {tuple(leaf.shape.as_list())}"
            )
        return array.astype(leaf.dtype.as_numpy_dtype, casting="same_kind")

    nest = tf.nest.map_structure(converted, nest, spec)
    if len({len(each) for each in tf.nest.flatten(nest)}) != 1:
        raise ValueError("has arrays of different numbers of rows")
    return nest
