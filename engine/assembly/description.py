"""Description of a run's data, saved with its weights so that they can be used without it."""

from __future__ import annotations

from typing import Any

import numpy as np

import pipelines

_REFERENCE = 256  # maximum number of training images that define the background and ink layout


class RunDescription:
    """Description of a run's data set for its checkpoints; computed on first use.

    Its JSON object has "source": specs, classes and preprocessing of the data set; and
    "image_format": background and ink layout of its images, or None if inputs are no images.
    """

    def __init__(self, source: pipelines.Source, cache_dir: str) -> None:
        self._source, self._cache_dir = source, cache_dir
        self._made: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        """Returns the description as an object for `json.dumps`."""
        if self._made is None:
            self._made = {
                "source": pipelines.source_to_json(self._source),
                "image_format": image_format(self._source, self._cache_dir),
            }
        return self._made


def image_format(source: pipelines.Source, cache_dir: str) -> dict[str, Any] | None:
    """Returns `pipelines.image_format` of the first training images as an object for `json.dumps`.

    None if image files cannot be converted to the inputs, or a training image cannot be read.
    """
    if not pipelines.converts_pictures(source):
        return None
    indices = np.arange(min(len(source.train), _REFERENCE))
    try:
        images = list(pipelines.read_stored_images(source, source.train, indices, cache_dir))
    except (ValueError, OSError):  # reported where the example is needed
        return None
    return pipelines.image_format(source, images).to_json()
