"""What `--onednn=auto` and `--precision=auto` choose, and say of an emulation."""

from __future__ import annotations

import pytest

from engine.assembly import precision
from engine.assembly.processor_choices import (
    ONEDNN,
    PRECISION,
    ComputeDevices,
    Network,
    chosen,
    emulation,
    is_native,
    network_of,
)
from engine.config import flags
from engine.config.schema import Config, replaced
from engine.models.registry import NETWORKS, kind
from engine.runtime import onednn
from engine.runtime.processor import Processor


def processor(*features, **more):
    return Processor(features=frozenset(features), **more)


AVX = processor("avx")
AVX2 = processor("avx", "avx2")
SKYLAKE = processor("avx", "avx2", "avx512f")
ALDER_LAKE = processor("avx", "avx2", "avx_vnni")
CASCADE_LAKE = processor("avx", "avx2", "avx512f", "avx512_vnni")
ZEN4 = processor("avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16")
HELD = processor(*ZEN4.features, limit="AVX2")
SAPPHIRE = processor(*ZEN4.features, "amx_tile", "amx_bf16", "avx512_fp16")
NEOVERSE = processor("asimd", "asimdhp", "bf16", part="0xd40")
ARM = processor("asimd")
APPLE = processor("feat_bf16", system="darwin")
UNKNOWN = Processor()
TEXT = (
    "--model=transformer",
    "--task=language_model",
    "--dataset=tiny_shakespeare",
    "--context=64",
)


def test_kinds_of_networks():
    kinds = {
        "convolutional": ("cnn", "seed_004", "resnet", "airbench"),
        "dense": ("mlp", "logistic"),
        "vit": ("vit",),
        "transformer": ("transformer",),
        "unknown": ("of_a_user",),
    }
    assert all(kind(name) == each for each, names in kinds.items() for name in names)
    assert {kind(name) for name in NETWORKS} <= set(kinds)


@pytest.mark.parametrize(
    ("of", "convolutional", "dense", "unknown"),
    [
        (AVX, "off", "off", "off"),
        (AVX2, "on", "off", "on"),
        (SKYLAKE, "on", "off", "on"),
        (HELD, "on", "off", "on"),
        *((each, "on", "on", "on") for each in (ALDER_LAKE, CASCADE_LAKE, ZEN4, SAPPHIRE)),
        (NEOVERSE, "on", "on", "on"),
        *((each, "off", "off", "off") for each in (ARM, APPLE, UNKNOWN)),
    ],
)
def test_onednn(of, convolutional, dense, unknown):
    kinds = {"convolutional": convolutional, "dense": dense, "unknown": unknown}
    assert {
        each: chosen(ONEDNN, ComputeDevices(of), Network(each), "float32") for each in kinds
    } == kinds


def test_held_process_does_not_abort():
    """Held to AVX2, oneDNN has no kernels of bfloat16, but TensorFlow would call them."""
    assert chosen(ONEDNN, ComputeDevices(HELD), Network("convolutional"), "mixed_bfloat16") == "off"
    assert chosen(ONEDNN, ComputeDevices(AVX2), Network("convolutional"), "mixed_bfloat16") == "on"


@pytest.mark.parametrize(
    ("of", "capability", "network", "onednn", "expected"),
    [
        *((of, None, "convolutional", "on", "mixed_bfloat16") for of in (ZEN4, SAPPHIRE)),
        *((of, None, "vit", "on", "mixed_bfloat16") for of in (ZEN4, SAPPHIRE)),
        *((of, None, "vit", "on", "float32") for of in (AVX2, HELD, CASCADE_LAKE)),
        *((of, None, "convolutional", "on", "float32") for of in (AVX2, HELD, CASCADE_LAKE)),
        *((of, None, "convolutional", "off", "float32") for of in (ZEN4, APPLE, UNKNOWN)),
        *((ZEN4, None, each, "on", "float32") for each in ("dense", "transformer", "unknown")),
        *((AVX2, (8, 0), network, "off", "mixed_bfloat16") for network in ("dense", "unknown")),
        *((ZEN4, (7, 5), network, "on", "float32") for network in ("dense", "convolutional")),
    ],
)
def test_precision(of, capability, network, onednn, expected):
    assert chosen(PRECISION, ComputeDevices(of, capability), Network(network), onednn) == expected


@pytest.mark.parametrize(
    ("options", "network", "precision"),
    [
        (["--model=cnn"], Network("convolutional"), "mixed_bfloat16"),
        (["--model=logistic"], Network("dense"), "float32"),
        (["--model=mlp"], Network("dense", 128 * 512.0**2), "float32"),
        (
            ["--model=mlp", "--hidden=64,2048,64"],
            Network("dense", 128 * 2048.0**2),
            "mixed_bfloat16",
        ),
        (
            ["--model=mlp", "--hidden=2048", "--accumulate=64"],
            Network("dense", 2 * 2048.0**2),
            "float32",
        ),
        (["--model=mlp", "--hidden=2048", "--jit=loop"], Network("dense"), "float32"),
        (
            ["--model=mlp", "--hidden=2048", "--jit=off"],
            Network("dense", 128 * 2048.0**2),
            "mixed_bfloat16",
        ),
        ([*TEXT, "--global_batch_size=12"], Network("transformer", 25165824.0), "float32"),
        ([*TEXT, "--global_batch_size=64"], Network("transformer", 134217728.0), "mixed_bfloat16"),
        (
            [*TEXT, "--global_batch_size=12", "--model.width=256"],
            Network("transformer", 100663296.0),
            "mixed_bfloat16",
        ),
    ],
)
def test_large_products(options, network, precision):
    """Large matrix products are faster in bfloat16, unless XLA computes them."""
    assert network_of(flags.parse(options)) == network
    assert chosen(PRECISION, ComputeDevices(ZEN4), network, "on") == precision
    assert chosen(PRECISION, ComputeDevices(AVX2), network, "on") == "float32"


def test_native():
    of = [(ZEN4, "on"), (ZEN4, "off"), (AVX2, "on"), (UNKNOWN, "on")]
    found = [is_native("mixed_bfloat16", ComputeDevices(each), now) for each, now in of]
    assert found == [True, False, False, False]
    assert not is_native("mixed_bfloat16", ComputeDevices(ZEN4, (8, 0)), "on")
    assert not is_native("mixed_float16", ComputeDevices(ZEN4), "on")
    assert is_native("mixed_float16", ComputeDevices(SAPPHIRE), "on")


@pytest.mark.parametrize(
    ("precision", "devices", "onednn", "cause"),
    [
        ("float32", ComputeDevices(AVX2), "on", ""),
        ("mixed_bfloat16", ComputeDevices(AVX2), "on", "the processor does not compute in it"),
        ("mixed_bfloat16", ComputeDevices(HELD), "off", "the processor does not compute in it"),
        ("mixed_bfloat16", ComputeDevices(ZEN4), "on", ""),
        ("mixed_bfloat16", ComputeDevices(ZEN4), "off", "by oneDNN only, which is off"),
        ("mixed_float16", ComputeDevices(ZEN4), "on", "the processor does not compute in it"),
        ("mixed_float16", ComputeDevices(SAPPHIRE), "on", ""),
        ("mixed_bfloat16", ComputeDevices(ARM), "off", "the processor does not compute in it"),
        ("mixed_bfloat16", ComputeDevices(APPLE), "off", "by oneDNN only, which is off"),
        ("mixed_bfloat16", ComputeDevices(UNKNOWN), "on", ""),  # nothing is known, nothing is said
        ("mixed_bfloat16", ComputeDevices(AVX2, (7, 0)), "off", "compute capability 7.0"),
        ("mixed_float16", ComputeDevices(AVX2, (7, 0)), "off", ""),
        ("mixed_bfloat16", ComputeDevices(AVX2, (9, 0)), "off", ""),
    ],
)
def test_emulation(precision, devices, onednn, cause):
    line = emulation(precision, devices, onednn)
    assert cause in line and bool(line) == bool(cause) and "\n" not in line
    assert not line or (line.startswith(precision) and "float32 is faster" in line)
    assert ("the cnn" in line) == bool(
        line
        and devices.processor.system == "linux"
        and "avx" in devices.processor.features
        and devices.capability is None
    )


def test_emulation_under_xla():
    """XLA does not need oneDNN; the cost of the emulation was measured without XLA."""
    zen4, avx2 = ComputeDevices(ZEN4), ComputeDevices(AVX2)
    assert not emulation("mixed_bfloat16", zen4, "off", compiled=True)
    line = emulation("mixed_bfloat16", avx2, "on", compiled=True)
    assert "the processor does not compute in it; --precision=float32 is faster" in line


class Workers:
    """Collectives of a worker that is not the chief: the other's values are those of the test."""

    def __init__(self, chief, most):
        self._chief, self._most = chief, most

    def broadcast(self, value):
        return precision._CODES.index(self._chief)

    def max(self, value):
        return max(value, self._most)


@pytest.mark.parametrize(
    ("chief", "most", "expected"),
    [
        ("mixed_float16", 0, "mixed_float16"),  # kept by the run that the chief resumes
        ("auto", 0, "mixed_bfloat16"),
        ("auto", 1, "float32"),  # another worker's processor does not compute in bfloat16
    ],
)
def test_workers_agree(monkeypatch, chief, most, expected):
    monkeypatch.setattr(precision, "this_processor", lambda: ZEN4)
    monkeypatch.setattr(onednn, "state", lambda: "on")
    config = replaced(Config(), precision="auto")
    assert precision.resolved(config, Workers(chief, most)).precision.precision == expected


@pytest.mark.parametrize(
    ("options", "capabilities", "expected"),
    [
        ({}, [(9, 0), (8, 0)], (8, 0)),
        ({"strategy": "gpu"}, [(9, 0), (7, 5)], (9, 0)),
        ({"strategy": "cpu"}, [(9, 0)], None),
        ({"virtual_devices": 2}, [(9, 0)], None),
        ({}, [], None),
        ({}, [None], (0, 0)),
    ],
)
def test_capability(monkeypatch, options, capabilities, expected):
    details = dict(enumerate(capabilities))
    monkeypatch.setattr(precision.gpus, "physical", lambda: list(details))
    monkeypatch.setattr(
        precision.tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": details[gpu]} if details[gpu] else {},
    )
    config = replaced(Config(), **options)
    assert precision.capability(config.devices) == expected
