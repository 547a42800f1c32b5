"""Selects the examples of a data set on which a verification trains and evaluates."""

from __future__ import annotations

import dataclasses

import pipelines

FULL_BATCHES = 4  # number of full batches in an epoch; a partial batch follows
EVALUATION_BYTES = 32 << 20  # maximum decoded size of the evaluated split


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first examples of the user's splits, for short training runs and evaluations."""

    full: pipelines.Source  # as configured
    source: pipelines.Source  # with the first examples only, and with a single held-out split
    scored: str  # name of the held-out split, "validation" or "test"
    scored_from: str  # the user's split that it is taken from; "train" if none is held out
    batch: int  # number of examples in a full batch; of all, if there are fewer

    @property
    def examples_scored(self) -> int:
        """Number of examples in the held-out split of `source`."""
        return len(self.source.splits[self.scored])

    @property
    def examples_held_out(self) -> int:
        """Number of examples in the user's split `scored_from`."""
        return len(self.full.splits[self.scored_from])


def sample(full: pipelines.Source, global_batch_size: int) -> Sample:
    """Returns the first examples of a data set as a sample.

    The training split gets up to `FULL_BATCHES` full batches and, if possible, a partial one. The
    held-out split gets the first examples, up to `EVALUATION_BYTES` but at least one, of the
    first validation set, or of the test split if there is none, or else of the training split.
    """
    examples = len(full.train)
    batch = min(global_batch_size, examples)
    # The partial batch is more than half full, so that each of two devices gets examples.
    count = min(FULL_BATCHES * batch + 5 * batch // 8, examples)
    if count > batch > 1 and count % batch == 0:
        count -= 1
    train = full.train.part(0, count, f"{full.train.name}[:{count}]")
    scored_from = next(iter(full.held_out), "train")
    held_out = full.splits[scored_from]
    at_most = max(1, EVALUATION_BYTES // pipelines.example_bytes(full.decoded[0]))
    held_out = held_out.part(0, min(len(held_out), at_most), held_out.name)
    scored = "test" if scored_from == "test" else "validation"
    sets = {scored: held_out} if scored == "validation" else {}
    test = held_out if scored == "test" else None
    source = dataclasses.replace(full, train=train, validation_sets=sets, test=test)
    return Sample(full, source, scored, scored_from, batch)
