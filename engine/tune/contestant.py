"""Measures one configuration in a process of its own: a process cannot change TensorFlow's threads.

    python -m engine.tune.contestant --OPTION=VALUE ...

Writes a line of JSON: jit, threads, feed, device, onednn and precision when ready, or error and
bad_input on failure.
For each line of input, a number of seconds, trains for about that time and writes a line of JSON:
the steps taken and the seconds.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from engine.assembly import automatic_options
from engine.config import flags
from engine.config.schema import Config
from engine.runtime import onednn
from engine.runtime.startup import import_tensorflow
from engine.runtime.user_code import described, user_code_location


def main() -> None:
    """Runs the program: trains for each line of standard input, and writes the measurements."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects what libraries print to stderr
    automatic_options.prepare([*sys.argv[1:], "--mode=tune"])
    import_tensorflow()
    try:
        _serve(flags.parse(sys.argv[1:]), output)
    except Exception as error:
        if user_code_location(error):
            _answer(output, error=described(error), bad_input=True)
        elif isinstance(error, (ValueError, RuntimeError)):
            message = " ".join(str(error).split())
            _answer(output, error=message, bad_input=isinstance(error, ValueError))
        else:
            raise


def _serve(config: Config, output: TextIO) -> None:
    import tensorflow as tf

    from engine.assembly.parts import assemble
    from engine.benchmark.stepper import Stepper, read_ahead
    from engine.core.steps_per_loop import stopwatch

    parts = assemble(config)
    # A feed that prefetches continues, and so does its step.
    kept = parts.state.step if read_ahead(parts) else None
    start = [(v, v.numpy()) for v in parts.state.variables if v is not kept]
    stepper = Stepper(parts, parts.loop, lambda: False, start)

    def timed(steps: int) -> float:
        stepper.restart()  # the same work each time
        stepper.take(stepper.read_ahead)  # consumes batches prefetched during a pause
        started = stopwatch()
        stepper.take(steps)
        return stopwatch() - started

    timed(1)  # traces and compiles
    steps, seconds = 1, timed(1)
    while seconds < 0.1 and steps < 1 << 20:
        steps *= 2
        seconds = timed(steps)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    _answer(
        output,
        jit=parts.jit,
        threads=threads,
        feed=parts.feed_kind,
        device=parts.device,
        onednn=onednn.state(),
        precision=parts.config.precision.precision,
    )
    for line in sys.stdin:
        steps = max(1, round(steps * float(line) / seconds))
        seconds = timed(steps)
        _answer(output, steps=steps, seconds=seconds)
    parts.close()


def _answer(output: TextIO, **fields: object) -> None:
    print(json.dumps(fields), file=output, flush=True)


if __name__ == "__main__":
    main()
