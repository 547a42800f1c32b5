"""Describes a run's data set in checkpoints, so that the weights can be used without the data."""

from __future__ import annotations

from typing import Any

import numpy as np

import pipelines
from engine.assembly.compiled_step import KEY

_REFERENCE = 256  # maximum number of training images that define the background and ink layout


class RunDescription:
    """Callable that returns the description of a run's data set, which is saved in checkpoints.

    The description is a dict: "source" holds the specs, classes and preprocessing of the data set,
    "image_format" the result of `image_format`, and "jit_obstacle" `Parts.jit_obstacle`. The first
    call computes the description, and later calls return the same dict.
    """

    def __init__(
        self, source: pipelines.Source, cache_dir: str, jit_obstacle: str | None = None
    ) -> None:
        self._source, self._cache_dir, self._obstacle = source, cache_dir, jit_obstacle
        self._made: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        """Returns the description as a dict that `json.dumps` accepts."""
        if self._made is None:
            self._made = {
                "source": pipelines.source_to_json(self._source),
                "image_format": image_format(self._source, self._cache_dir),
                KEY: self._obstacle,
            }
        return self._made


def image_format(source: pipelines.Source, cache_dir: str) -> dict[str, Any] | None:
    """Measures the background and the foreground's size and position in the first training images.

    Reads at most 256 images.

    Returns:
      The fields of `pipelines.ImageFormat` as a dict that `json.dumps` accepts. None if the inputs
      are not uint8 images with 1 or 3 channels, or if one of the images cannot be read.
    """
    if not pipelines.converts_pictures(source):
        return None
    indices = np.arange(min(len(source.train), _REFERENCE))
    try:
        images = list(pipelines.read_stored_images(source, source.train, indices, cache_dir))
    except (ValueError, OSError):  # reported where the example is needed
        return None
    return pipelines.image_format(source, images).to_json()
