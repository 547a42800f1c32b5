"""Data and cache directories of the golden commands."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests import conftest as conftest  # sets up the devices of a test session
from tests import prepared


@contextmanager
def places() -> Iterator[dict[str, str]]:
    """Yields the directory arguments of `runs.losses`; raises SystemExit without prepared MNIST."""
    data_dir = prepared.data_dir()
    if data_dir is None:
        sys.exit("no prepared MNIST: set TAPELINE_TEST_DATA_DIR to a TFDS data directory")
    with tempfile.TemporaryDirectory() as cache_dir:
        yield {"data_dir": data_dir, "cache_dir": cache_dir}
