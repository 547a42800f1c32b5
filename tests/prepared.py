"""The directory of TFDS datasets that tests read."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> str | None:
    """Returns the TFDS directory of the tests; None if it does not contain MNIST.

    The directory is the value of the environment variable `TAPELINE_TEST_DATA_DIR`, or else
    shared/tensorflow_datasets beside the repository.
    """
    beside = Path(__file__).parents[2] / "shared" / "tensorflow_datasets"
    place = os.environ.get("TAPELINE_TEST_DATA_DIR") or str(beside)
    return place if os.path.isdir(os.path.join(place, "mnist")) else None
