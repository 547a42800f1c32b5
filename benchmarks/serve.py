"""A contender as a process that waits to be asked. Standard library only.

It says one line of JSON when it is ready. Then each line that it reads is a number of steps, and
its answer is one line with the steps that it took and their seconds. While others are measured it
sleeps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(
    take: Callable[[int], int | None], facts: dict[str, Any], final: Callable[[], Any]
) -> None:
    """Answers until there are no more questions.

    Args:
      take: takes that many training steps, and waits until they are done; where it can only take
        more it returns how many.
      facts: what runs: versions and the like. `at_least`: so many steps are to be in a block.
      final: asked at the end, for what shows that the work was done; answered too.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    print(json.dumps({"ready": True, **facts}), file=answer, flush=True)
    for line in sys.stdin:
        steps = int(line)
        if not steps:
            break
        started = time.perf_counter()
        taken = take(steps) or steps
        seconds = time.perf_counter() - started
        print(json.dumps({"steps": taken, "seconds": seconds}), file=answer, flush=True)
    print(json.dumps({"final": final()}), file=answer, flush=True)
