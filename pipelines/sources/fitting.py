"""Fits the preprocessing of a source: means and standard deviations of the training split."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os

import tensorflow as tf

from pipelines import nests
from pipelines.errors import damaged_data_message, reason
from pipelines.preprocessing import Moments, Preprocessing
from pipelines.source import Source
from pipelines.storage import cache
from pipelines.storage.decode import decoded_batches


def fitted(source: Source, cache_dir: str) -> Source:
    """Returns the source with fitted preprocessing, or the same source if nothing is to be fitted.

    The statistics, over all training examples, are cached in `cache_dir`.

    Raises:
      ValueError: when the data is damaged.
      OSError: when a file of the data cannot be read.
    """
    if source.preprocess.fitted:
        return source
    path = os.path.join(cache_dir, f"{cache.key(source.train, source.recipe)}.scale")
    preprocess = _load(path, source.preprocess)
    if preprocess is None:
        preprocess = _fit(source)
        with contextlib.suppress(OSError), cache.written(path) as file:
            file.write(json.dumps(preprocess.to_json()).encode())
    return dataclasses.replace(source, preprocess=preprocess)


def _load(path: str, unfitted: Preprocessing) -> Preprocessing | None:
    try:
        with open(path, "rb") as file:
            found = Preprocessing.from_json(json.load(file))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    kinds = {path: scale.kind for path, scale in found.scales.items()}
    same = kinds == {path: scale.kind for path, scale in unfitted.scales.items()}
    return found if same and found.fitted else None


def _fit(source: Source) -> Preprocessing:
    scales = dict(source.preprocess.scales)
    paths = nests.paths(source.decoded[0])
    moments = {path: Moments() for path in paths if path in scales and not scales[path].fitted}
    try:
        for inputs, _ in decoded_batches(source, source.train, source.train.reader()):
            for path, values in zip(paths, tf.nest.flatten(inputs), strict=True):
                if path in moments:
                    moments[path].add(values)
    except tf.errors.OpError as error:
        where = f"{source.name}, {source.train.name}"
        raise ValueError(damaged_data_message(where, reason(error), source.remedy)) from None
    return Preprocessing({**scales, **{path: each.scale() for path, each in moments.items()}})
