"""The combinations of options (candidates) that tuning measures. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from engine.config.option import written
from engine.config.schema import Config, replaced

JITS = ("off", "step", "loop")
FEEDS = ("resident", "stream")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Values of options that affect training speed; with a default, Tapeline chooses the value."""

    jit: str = "auto"
    feed: str = "auto"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    steps_per_loop: str = "auto"
    onednn: str = "auto"

    def __str__(self) -> str:
        options = [
            f"--{field.name}={written(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return " ".join(options) or "as it is"

    def applied(self, config: Config) -> Config:
        """Returns a copy of a configuration with the options of this candidate."""
        return replaced(config, **dataclasses.asdict(self))


def first(jit: str, now: int, cores: int) -> Iterator[Candidate]:
    """Yields the first round of candidates: each XLA mode with several numbers of intra-op threads.

    `Candidate()` is left out.

    Args:
      jit: mode that `--jit=auto` resolves to.
      now: number of threads that `--intra_op_threads=0` resolves to; 0: one per core.
      cores: number of cores that the process may use.
    """
    counts = sorted({1, cores // 2, cores} - {0, now or cores})
    for mode in ("auto", *(other for other in JITS if other != jit)):
        for count in (0, *counts):
            if (candidate := Candidate(jit=mode, intra_op_threads=count)) != Candidate():
                yield candidate


def around(best: Candidate, feed: str, onednn: str) -> Iterator[Candidate]:
    """Yields copies of `best` that differ in one option.

    The option is the feed, the number of inter-op threads, the steps per call, or oneDNN.

    Args:
      best: fastest candidate so far.
      feed: feed, "resident" or "stream", that `best` resolves to.
      onednn: whether oneDNN is "on" or "off" in the process of `best`; "": it cannot be chosen.
    """
    if onednn:
        yield dataclasses.replace(best, onednn="off" if onednn == "on" else "on")
    yield dataclasses.replace(best, feed=next(other for other in FEEDS if other != feed))
    yield dataclasses.replace(best, inter_op_threads=1)
    for steps in ("32", "1024"):
        yield dataclasses.replace(best, steps_per_loop=steps)
