"""One worker process of a multi-worker test: trains a few steps and saves its final arrays.

    TF_CONFIG=... python -m tests.laws.worker OPTIONS OUT

OPTIONS: JSON of options by name; "poisoned" maps steps to the row whose gradient is infinite. OUT:
.npz file for the worker's weights, metric sums and counters.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from engine.assembly import data, factories
from engine.assembly.parts import assemble
from engine.config import flags
from engine.distributed.cluster import Cluster
from engine.distributed.collectives import HostCollectives
from engine.verify.fault_injection import FaultInjectingTask
from engine.verify.trajectory import weights
from tests.laws.product import STEPS, poisoned_steps


def main(options: dict, out: str) -> None:
    faults = {int(step): row for step, row in options.pop("poisoned", {}).items()}
    config = flags.from_values({"strategy": "multi_worker", **options})
    with Cluster(config.devices, os.environ, flags.digest(config)) as cluster:
        collectives = HostCollectives(cluster)
        tf.config.experimental.enable_op_determinism()
        collectives.strategy()  # TensorFlow needs it before the task creates variables
        task = FaultInjectingTask(factories.build_task(config, data.open_source(config)))
        parts = assemble(config, task, collectives=collectives)
        poisoned_steps(parts, task, faults, STEPS)
        counts = np.array([int(parts.state.step), int(parts.state.updates)])
        np.savez(out, counts=counts, sums=parts.state.sums.numpy(), **weights(parts))
        parts.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
