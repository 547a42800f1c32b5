"""Generates the candidates that tuning measures, in order. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from engine.config.option import written
from engine.config.schema import Config, replaced

JITS = ("off", "step", "loop")
FEEDS = ("resident", "stream")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Options that affect the speed of training and not its mathematics.

    With 0 and "auto", the defaults, TensorFlow or Tapeline chooses the value.
    """

    jit: str = "auto"
    feed: str = "auto"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    steps_per_loop: str = "auto"

    def __str__(self) -> str:
        return " ".join(self.flags()) or "as it is"

    def flags(self) -> list[str]:
        """Returns the options that differ from their defaults, as command-line flags."""
        return [
            f"--{field.name}={written(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]

    def applied(self, config: Config) -> Config:
        """Returns a copy of a configuration with the options of this candidate."""
        return replaced(config, **dataclasses.asdict(self))


def threads(cores: int, now: int = 0) -> list[int]:
    """Returns the thread counts to try, without the current one, `now`; 0: one per core."""
    return sorted({1, cores // 2, cores} - {0, now or cores})


def first(jit: str, now: int, cores: int) -> Iterator[Candidate]:
    """Yields the first candidates: each XLA mode with several thread counts; not `Candidate()`.

    Args:
      jit: mode that `--jit=auto` resolves to.
      now: number of threads that `--intra_op_threads=0` resolves to; 0: one per core.
      cores: number of cores that this process may use.
    """
    for compiled in ("auto", *(each for each in JITS if each != jit)):
        for count in (0, *threads(cores, now)):
            if (choice := Candidate(jit=compiled, intra_op_threads=count)) != Candidate():
                yield choice


def around(best: Candidate, feed: str, cores: int) -> Iterator[Candidate]:
    """Yields variations of the best candidate.

    They are the other feed, another number of inter-op threads, and fixed steps per loop.

    Args:
      best: fastest candidate so far.
      feed: feed that the best candidate uses, "resident" or "stream".
      cores: number of cores that this process may use.
    """
    yield dataclasses.replace(best, feed=next(each for each in FEEDS if each != feed))
    for count in (1, *threads(cores)):
        if count != best.inter_op_threads:
            yield dataclasses.replace(best, inter_op_threads=count)
            break
    for steps in ("32", "1024"):
        yield dataclasses.replace(best, steps_per_loop=steps)
