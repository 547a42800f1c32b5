"""Serves Keras's `evaluate` of the networks of W5 to W8 as a benchmark contender.

    python real_keras_evaluate.py W6 4096 '{"batch": 512, "jit": false, "input": "array"}'

batch: batch size; null: Keras's default. jit: true, false or "auto", Keras's default. input:
"array", or "dataset" for tf.data. A step is a pass over that many examples, those of
benchmarks/real/engine_evaluation.py, with the same weights; see benchmarks/serve.py.
"""

from __future__ import annotations

import json
import sys

from benchmarks.peers.real_keras import model_of  # isort: skip  # first: it sets Keras's backend

from benchmarks.peers.keras_passes import serve_passes
from benchmarks.real import arrays
from benchmarks.real.specs import SPECS


def main() -> None:
    """Serves requests for evaluation passes through benchmarks/serve.py."""
    spec, examples, variant = SPECS[sys.argv[1]], int(sys.argv[2]), json.loads(sys.argv[3])
    inputs, targets = arrays.examples_of(spec._replace(examples=spec.batch + examples))
    inputs, targets = inputs[spec.batch :], targets[spec.batch :]
    serve_passes(model_of(spec), inputs, targets, variant)


if __name__ == "__main__":
    main()
