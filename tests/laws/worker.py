"""One worker of several, as a process of its own: trains a little and says what came of it.

    TF_CONFIG=... python -m tests.laws.worker OPTIONS OUT

OPTIONS: JSON, options by name; "poisoned": {step: row} where the gradient of that row is infinite.
OUT: an .npz file of all variables that this worker holds, and its counters.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from engine import flags
from engine.assembly import assemble
from engine.task import Classification
from engine.verify.poison import Poisoned
from engine.verify.trajectory import weights
from engine.workers.company import Company
from engine.workers.crew import Crew
from tests.laws.product import STEPS, poisoned_steps


def main(options: dict, out: str) -> None:
    poison = {int(step): row for step, row in options.pop("poisoned", {}).items()}
    config = flags.from_values({"strategy": "multi_worker", **options})
    with Company(config, dict(os.environ)) as company:
        crew = Crew(company)
        tf.config.experimental.enable_op_determinism()
        crew.strategy()  # before the task's variables: TensorFlow wants it first
        task = Poisoned(Classification(config.optimization.label_smoothing))
        parts = assemble(config, task, crew=crew)
        poisoned_steps(parts, task, poison, STEPS)
        counts = np.array([int(parts.state.step), int(parts.state.updates)])
        np.savez(out, counts=counts, sums=parts.state.sums.numpy(), **weights(parts))
        parts.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
