"""The directory of prepared datasets."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> str | None:
    """Returns the TFDS directory of MNIST and Fashion-MNIST; None: they are not prepared."""
    beside = Path(__file__).parents[2] / "shared" / "tensorflow_datasets"
    place = os.environ.get("TAPELINE_TEST_DATA_DIR") or str(beside)
    return place if os.path.isdir(os.path.join(place, "mnist")) else None
