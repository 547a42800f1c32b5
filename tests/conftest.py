"""Sets up TensorFlow for the tests: four virtual CPU devices, op determinism, few log messages."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import logging
import signal
from collections.abc import Iterator

import hypothesis
import pytest
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

from engine.runtime.graph_optimizer import keep_order_of_additions
from pipelines.feeds.stream import close_all
from tests import prepared

# A session in the background or under nohup ignores these signals; child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No deadlines: the duration of an example depends on the machine.
hypothesis.settings.register_profile(
    "timeless", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("timeless")
keep_order_of_additions()  # as engine.runtime.startup does for a command
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)
tf.config.experimental.enable_op_determinism()
tf.config.list_logical_devices()  # initializes devices, so that no test can change them
_retraced: list[str] = []


def _remember_retracing(record: logging.LogRecord) -> bool:
    """Filters TensorFlow's log: remembers warnings of retracing, returns True for errors only."""
    if "retracing" in record.getMessage():
        _retraced.append(record.getMessage())
    return record.levelno >= logging.ERROR


# TensorFlow counts traces by code object, which runs in a test share; count by function instead.
polymorphic_function.Function._get_key_for_call_stats = lambda self: self._python_function
tf.get_logger().setLevel("WARNING")
tf.get_logger().addFilter(_remember_retracing)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the path of the session's cache directory, which is new and empty at the start."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_data() -> str:
    """Returns the directory of MNIST and Fashion-MNIST; skips the test if they are not prepared."""
    place = prepared.data_dir()
    if place is None:
        pytest.skip("no prepared MNIST: set TAPELINE_TEST_DATA_DIR to a TFDS data directory")
    return place


@pytest.fixture(autouse=True)
def same_global_seed() -> None:
    """Seeds TensorFlow's global generator, as a command does, whichever tests ran before.

    With op determinism and without a global seed, TensorFlow refuses random ops that have no seed.
    """
    tf.random.set_seed(0)


@pytest.fixture(autouse=True)
def no_stream_reads_on() -> Iterator[None]:
    """Closes the streaming feeds of a test, so that none prefetches during the next test."""
    yield
    close_all()


@pytest.fixture(autouse=True)
def nothing_is_traced_again_and_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test in which TensorFlow warns of frequent retracing, unless it has `many_graphs`."""
    polymorphic_function._frequent_tracing_detector_manager._detectors.clear()
    _retraced.clear()
    yield
    assert not _retraced or request.node.get_closest_marker("many_graphs"), _retraced[0]
