"""Configuration of GPUs: memory, determinism and the variable that hides them, with fake GPUs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as determinism

from engine.distributed import gpus
from engine.distributed.collectives import HostCollectives
from engine.distributed.options import DeviceOptions
from engine.distributed.strategies import choose, topologies

MIB, GIB = 1 << 20, 1 << 30
SMI = """0, GPU-aaaa, 81559, 80000
1, GPU-bbbb, 81559, 1024
2, GPU-cccc, [N/A], [N/A]
"""


@pytest.fixture
def fake(monkeypatch):
    """Yields the calls that configure two fake GPUs, which TensorFlow reports."""
    devices = [SimpleNamespace(name=f"/physical_device:GPU:{i}") for i in range(2)]
    calls = SimpleNamespace(devices=devices, growth=[], limits={})
    config, listed = tf.config, tf.config.list_physical_devices

    def set_limit(device, logical):
        if device.name.endswith("CPU:0"):
            return
        calls.limits[device.name] = logical

    def set_growth(device, on):
        if device.name in calls.limits:
            raise ValueError("Cannot set memory growth on device when virtual devices configured")
        calls.growth.append((device.name, on))

    monkeypatch.setattr(
        config,
        "list_physical_devices",
        lambda kind=None: devices if kind == "GPU" else listed(kind),
    )
    monkeypatch.setattr(config, "get_visible_devices", lambda kind=None: devices)
    monkeypatch.setattr(config, "set_visible_devices", lambda *_: None)
    monkeypatch.setattr(config, "set_logical_device_configuration", set_limit)
    monkeypatch.setattr(
        config, "get_logical_device_configuration", lambda device: calls.limits.get(device.name)
    )
    monkeypatch.setattr(config.experimental, "set_memory_growth", set_growth)
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    yield calls
    tf.config.experimental.enable_op_determinism()


def test_memory_grows_by_default(fake, monkeypatch):
    gpus.configure(fake.devices, 0)
    assert fake.growth == [(device.name, True) for device in fake.devices] and not fake.limits
    # TensorFlow forgets `set_memory_growth` where the CPU is split, as for a verification.
    assert gpus.os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    gpus.configure(fake.devices, 0)
    assert gpus.os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"  # the user's choice


def test_memory_limit_of_each_gpu(fake, monkeypatch):
    for _ in range(2):  # a second run in this process
        gpus.configure(fake.devices, 4096)
    assert {name: [each.memory_limit for each in c] for name, c in fake.limits.items()} == {
        device.name: [4096] for device in fake.devices
    }
    assert not fake.growth

    def started(*_):
        raise RuntimeError("Virtual devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_logical_device_configuration", started)
    with pytest.raises(ValueError, match="--gpu_memory_mb=512: TensorFlow has started with ano"):
        gpus.configure(fake.devices, 512)
    gpus.configure(fake.devices, 0)  # a limit that exists stays: growth cannot be set beside it


@pytest.mark.parametrize(
    ("deterministic", "strategy", "enabled"),
    [("auto", "auto", True), ("yes", "gpu", True), ("no", "gpu", False), ("no", "cpu", True)],
)
def test_determinism_is_off_on_gpus_alone(fake, deterministic, strategy, enabled):
    choose(DeviceOptions(strategy=strategy, deterministic=deterministic), HostCollectives())
    assert determinism.is_op_determinism_enabled() is enabled
    choose(DeviceOptions(strategy=strategy), HostCollectives())  # a later run
    assert determinism.is_op_determinism_enabled()


def test_determinism_of_verification(fake, monkeypatch):
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: {})
    topologies(DeviceOptions(strategy="gpu", deterministic="no"))
    assert not determinism.is_op_determinism_enabled()
    topologies(DeviceOptions(strategy="gpu"))
    assert determinism.is_op_determinism_enabled()


@pytest.mark.parametrize(
    ("visible", "said"),
    [
        (None, ""),
        ("", "CUDA_VISIBLE_DEVICES= hides all GPUs: unset it"),
        ("-1", "CUDA_VISIBLE_DEVICES=-1 hides all GPUs: unset it"),
        ("7", "CUDA_VISIBLE_DEVICES=7 may name GPUs that do not exist: correct it"),
    ],
)
def test_missing_gpu_names_the_variable(monkeypatch, visible, said):
    monkeypatch.setattr(gpus, "physical", list)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for options, named in (
        (("gpu", 0, 0), "--strategy=gpu: TensorFlow finds no GPU"),
        (("mirrored", 0, 0), "--strategy=mirrored: TensorFlow finds no GPU"),
        (("auto", 0, 512), "--gpu_memory_mb=512: TensorFlow finds no GPU"),
    ):
        with pytest.raises(ValueError) as refused:
            gpus.check(*options)
        text = str(refused.value)
        assert text.startswith(named) and said in text and "\n" not in text
        assert ("CUDA_VISIBLE_DEVICES" in text) == (visible is not None)
    gpus.check("auto", 0, 0)
    gpus.check("mirrored", 2, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu_memory_mb": 255}, "--gpu_memory_mb=255: is too little"),
        ({"gpu_memory_mb": 1}, "give 256 or more"),
        ({"gpu_memory_mb": 512, "virtual_devices": 2}, "--virtual_devices=2 uses none"),
        ({"gpu_memory_mb": 512, "strategy": "cpu"}, "--strategy=cpu uses none"),
    ],
)
def test_limit_that_does_not_fit(options, said):
    with pytest.raises(ValueError, match="--gpu_memory_mb=") as refused:
        DeviceOptions(**options)
    assert said in str(refused.value)


def test_memory_of_visible_gpus():
    first, second = (81559 * MIB, 80000 * MIB), (81559 * MIB, GIB)
    assert gpus.parsed_memory(SMI, None) == [first, second]
    assert gpus.parsed_memory(SMI, "0") == [first]
    assert gpus.parsed_memory(SMI, "GPU-bb, 0") == [first, second]
    assert gpus.parsed_memory(SMI, "") == gpus.parsed_memory("No devices were found", None) == []


def test_free_memory(monkeypatch):
    assert gpus.free_memory(0) is None  # no GPU is used
    logical = [SimpleNamespace(name="/device:GPU:0")]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: logical)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"current": GIB})
    monkeypatch.setattr(gpus, "_measured", lambda: [(80 * GIB, 30 * GIB), (80 * GIB, 20 * GIB)])
    assert gpus.free_memory(0) == 20 * GIB and gpus.memory_limit(0) == 80 * GIB
    assert gpus.free_memory(4096) == 3 * GIB and gpus.memory_limit(4096) == 4 * GIB
    monkeypatch.setattr(gpus, "_measured", list)  # nvidia-smi is missing
    assert gpus.free_memory(0) is None and gpus.memory_limit(0) is None
    assert gpus.free_memory(512) == 0
