"""Runs a contender's steps on request, over standard input and output; standard library only.

The process prints one line of JSON when it is ready. Each input line is a number of steps; the
answer is one line of JSON with the number of steps that were run and their seconds. The answer to
0, or to the end of the input, is the final result. The process sleeps while other contenders are
measured.
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
    """Answers requests until standard input ends or a request is 0; then prints the final result.

    Standard output is redirected to standard error, except for the answers.

    Args:
      take: runs a number of steps and waits for their end; returns the number of steps that were
        run, or None if it is the requested number.
      facts: versions by package; optionally `at_least`, the minimum number of steps in a block.
      final: called at the end; returns the final result, which shows that the work was done.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of libraries apart from the answers
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
