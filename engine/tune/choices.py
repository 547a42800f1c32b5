"""What may be chosen, and in what order it is tried. No TensorFlow here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from engine.config import Config, replaced
from engine.options import written

JITS = ("off", "step", "loop")
FEEDS = ("resident", "stream")


@dataclasses.dataclass(frozen=True)
class Choice:
    """Options that change how fast it goes and not what is computed; zeros and auto: TensorFlow's
    and Tapeline's own choice.
    """

    jit: str = "auto"
    feed: str = "auto"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    steps_per_loop: str = "auto"

    def __str__(self) -> str:
        return " ".join(self.flags()) or "as it is"

    def flags(self) -> list[str]:
        """Those that are not left to TensorFlow or Tapeline, as flags."""
        return [
            f"--{field.name}={written(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]

    def applied(self, config: Config) -> Config:
        """The options with this choice in them."""
        return replaced(config, **dataclasses.asdict(self))


def threads(cores: int, now: int = 0) -> list[int]:
    """Numbers of threads worth a trial beside those there are now; 0: one a core."""
    return sorted({1, cores // 2, cores} - {0, now or cores})


def first(jit: str, now: int, cores: int) -> Iterator[Choice]:
    """What is tried first beside `Choice()`: what XLA compiles, with all threads and fewer.

    Args:
      jit: that `--jit=auto` stands for.
      now: threads that `--intra_op_threads=0` stands for; 0: one a core.
      cores: that this process may use.
    """
    for compiled in ("auto", *(each for each in JITS if each != jit)):
        for count in (0, *threads(cores, now)):
            if (choice := Choice(jit=compiled, intra_op_threads=count)) != Choice():
                yield choice


def around(best: Choice, feed: str, cores: int) -> Iterator[Choice]:
    """What is tried around the best of those: the other feed, other threads, fixed calls."""
    yield dataclasses.replace(best, feed=next(each for each in FEEDS if each != feed))
    for count in (1, *threads(cores)):
        if count != best.inter_op_threads:
            yield dataclasses.replace(best, inter_op_threads=count)
            break
    for steps in ("32", "1024"):
        yield dataclasses.replace(best, steps_per_loop=steps)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
