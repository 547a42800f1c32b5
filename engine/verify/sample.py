"""Selects the examples of a data set that the laws are checked on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import pipelines

FULL_BATCHES = 4  # number of full batches in an epoch; a partial batch follows
EVALUATION_BYTES = 32 << 20  # maximum decoded size of the evaluated split


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first examples of the user's splits.

    Attributes:
      whole: data set as configured.
      source: data set with the first examples only, and with a single held-out split.
      scored: name of that split, "validation" or "test".
      scored_from: name of the user's split that it is taken from; "train" if none is held out.
      batch: number of examples in a full batch.
    """

    whole: pipelines.Source
    source: pipelines.Source
    scored: str
    scored_from: str
    batch: int

    @property
    def examples_scored(self) -> int:
        """Number of examples in the held-out split of `source`."""
        return len(getattr(self.source, self.scored))

    @property
    def examples_held_out(self) -> int:
        """Number of examples in the user's split that those are taken from."""
        return len(getattr(self.whole, self.scored_from))


def sample(whole: pipelines.Source, global_batch_size: int) -> Sample:
    """Reduces an epoch to `FULL_BATCHES` full batches and, if possible, a partial one.

    Args:
      whole: data set with all examples.
      global_batch_size: number of examples in a full batch; a smaller split is one batch.
    """
    batch = min(global_batch_size, len(whole.train))
    # The partial batch is more than half full, so that each of two devices gets examples.
    count = min(FULL_BATCHES * batch + 5 * batch // 8, len(whole.train))
    if count > batch > 1 and count % batch == 0:
        count -= 1
    train = whole.train.part(0, count, f"{whole.train.name}[:{count}]")
    held_out = {"validation": whole.validation, "test": whole.test, "train": whole.train}
    scored_from = next(name for name, records in held_out.items() if records is not None)
    records = held_out[scored_from]
    assert records is not None
    fitting = max(1, EVALUATION_BYTES // int(np.prod(whole.image_shape)))
    records = records.part(0, min(len(records), fitting), records.name)
    scored = "test" if scored_from == "test" else "validation"
    splits: dict[str, Any] = {"validation": None, "test": None, scored: records}
    source = dataclasses.replace(whole, train=train, **splits)
    return Sample(whole, source, scored, scored_from, batch)
