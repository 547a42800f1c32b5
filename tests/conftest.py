"""One TensorFlow for the whole session: four virtual CPU devices, deterministic, quiet."""

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

from pipelines.stream import close_all
from tests import prepared

# Started in the background, or by nohup, a session ignores them, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test fails by time alone: how long an example takes is the machine's affair.
hypothesis.settings.register_profile(
    "timeless", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("timeless")
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)
tf.config.experimental.enable_op_determinism()
tf.config.list_logical_devices()  # starts TensorFlow: no test changes the devices of the others
_retraced: list[str] = []


def _remember_retracing(record: logging.LogRecord) -> bool:
    """Keeps TensorFlow's warnings of retracing, and shows no warning."""
    if "retracing" in record.getMessage():
        _retraced.append(record.getMessage())
    return record.levelno >= logging.ERROR


# TensorFlow counts by code, which several runs in one test share; here by function.
polymorphic_function.Function._get_key_for_call_stats = lambda self: self._python_function
tf.get_logger().setLevel("WARNING")
tf.get_logger().addFilter(_remember_retracing)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache of the session's own: nothing from an earlier run can help."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_data() -> str:
    """Where MNIST and Fashion-MNIST are prepared; tests that need them are skipped elsewhere."""
    place = prepared.data_dir()
    if place is None:
        pytest.skip("no prepared MNIST: set TAPELINE_TEST_DATA_DIR to a TFDS data directory")
    return place


@pytest.fixture(autouse=True)
def no_stream_reads_on() -> Iterator[None]:
    """What a test opened does not read ahead during the next one."""
    yield
    close_all()


@pytest.fixture(autouse=True)
def nothing_is_traced_again_and_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """TensorFlow warns of a function traced in five of ten calls; a run traces each once."""
    polymorphic_function._frequent_tracing_detector_manager._detectors.clear()
    _retraced.clear()
    yield
    assert not _retraced or request.node.get_closest_marker("many_graphs"), _retraced[0]
