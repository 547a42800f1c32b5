"""The few examples of a data set that the laws are checked on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import pipelines

FULL_BATCHES = 4  # of an epoch, beside a partial one
EVALUATION_BYTES = 32 << 20  # decoded: what is evaluated is cut down to it


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first examples of the user's splits.

    whole: the data set as the user configured it.
    source: the same, cut down; of the splits held out it has one alone.
    scored: which one, "validation" or "test".
    scored_from: which of the user's that is: the training split where nothing is held out.
    batch: examples of a full batch.
    """

    whole: pipelines.Source
    source: pipelines.Source
    scored: str
    scored_from: str
    batch: int

    @property
    def examples_scored(self) -> int:
        """How many are evaluated."""
        return len(getattr(self.source, self.scored))

    @property
    def examples_held_out(self) -> int:
        """How many there are where these come from."""
        return len(getattr(self.whole, self.scored_from))


def sample(whole: pipelines.Source, global_batch_size: int) -> Sample:
    """Cuts a data set down: an epoch of a few full batches, and a partial one where that can be.

    Args:
      whole: with all its examples.
      global_batch_size: examples of a full batch; where there are fewer, they are one.
    """
    batch = min(global_batch_size, len(whole.train))
    # The partial batch is more than half a one: of two devices neither gets nothing.
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
