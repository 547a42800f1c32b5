"""Measures one configuration in a separate process, because threads are fixed at its start.

    python -m engine.tune.contestant --OPTION=VALUE ...

The process writes one line of JSON when it is ready, or the error if it fails. Then each line that
it reads is a duration in seconds. It trains for about that long, and answers with one line of JSON:
the number of steps taken and their duration in seconds.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from engine.config import flags
from engine.runtime.startup import import_tensorflow


def main() -> None:
    """Answers requests until the input ends."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects what libraries print to stderr
    import_tensorflow()
    try:
        config = flags.parse(sys.argv[1:])
        _serve(config, answer)
    except (ValueError, RuntimeError) as error:
        _say(answer, error=" ".join(str(error).split()), bad_input=isinstance(error, ValueError))


def _serve(config: Any, answer: TextIO) -> None:
    import tensorflow as tf

    from engine.assembly.parts import assemble
    from engine.benchmark.stepper import Stepper, read_ahead
    from engine.core.steps_per_loop import stopwatch

    parts = assemble(config)
    goes_on = {id(parts.state.step)} if read_ahead(parts) else set()
    variables = [each for each in parts.state.variables if id(each) not in goes_on]
    start = [(variable, variable.numpy()) for variable in variables]
    stepper = Stepper(parts, parts.loop, lambda: False, start)

    def timed(steps: int) -> float:
        stepper.restart()  # the same work each time
        if stepper.read_ahead:  # consumes batches prefetched during a pause
            stepper.take(stepper.read_ahead)
        started = stopwatch()
        stepper.take(steps)
        return stopwatch() - started

    timed(1)  # traces and compiles
    steps, seconds = 1, timed(1)
    while seconds < 0.1 and steps < 1 << 20:
        steps *= 2
        seconds = timed(steps)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    _say(answer, jit=parts.jit, threads=threads, feed=parts.feed_kind, device=parts.device)
    for line in sys.stdin:
        steps = max(1, round(steps * float(line) / seconds))
        seconds = timed(steps)
        _say(answer, steps=steps, seconds=seconds)
    parts.close()


def _say(answer: TextIO, **facts: Any) -> None:
    print(json.dumps(facts), file=answer, flush=True)


if __name__ == "__main__":
    main()
