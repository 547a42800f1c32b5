"""What `--onednn=auto` and `--precision=auto` choose, keep and say."""

from __future__ import annotations

import os
import sys

import pytest

from engine.assembly import precision, processor_choices
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


class Started:
    """TensorFlow as it starts: not imported, without the variable, on a processor of a test."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(processor_choices, "this_processor", lambda: AVX2)
        monkeypatch.delitem(sys.modules, "tensorflow")
        monkeypatch.delenv(onednn.VARIABLE, raising=False)
        monkeypatch.setattr(onednn, "_prepared", [])
        monkeypatch.setattr(onednn, "_calls", [])

    def value(self, *arguments):
        """Returns the value of the variable while TensorFlow is imported, and removes it again."""
        processor_choices.prepare(arguments)
        value = os.environ.get(onednn.VARIABLE)
        onednn.release()
        assert onednn.VARIABLE not in os.environ
        return value


@pytest.fixture
def started(monkeypatch):
    return Started(monkeypatch)


def run_in(place, *options):
    """Writes the files of a run with a checkpoint, and returns its directory."""
    config = flags.parse([f"--run_dir={place}", *options])
    (place / "checkpoints").mkdir()
    (place / "checkpoints" / "ckpt-1.npz").write_bytes(b"")
    (place / "config.flags").write_text(flags.flagfile(config))
    return str(place)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((), "1"),
        (("--model=mlp",), "0"),
        (("--model", "mlp"), "0"),
        (("--model=mlp", "--onednn=on"), "1"),
        (("--model=of_a_user", "--load=/not/there.py"), "1"),
        (("--onednn=off",), "0"),
        (("--onednn=maybe",), None),
        (("--flagfile=/not/there",), "1"),
    ],
)
def test_variable_before_import(started, arguments, value):
    assert started.value("--run_dir=/not/there", *arguments) == value


def test_variable_from_flagfile(started, tmp_path):
    path = tmp_path / "mine.flags"
    path.write_text("# a comment\n--model=mlp\n")
    assert started.value(f"--flagfile={path}") == "0"


def test_own_variable_wins(started, monkeypatch):
    monkeypatch.setenv(onednn.VARIABLE, "0")
    processor_choices.prepare(["--onednn=on"])
    onednn.release()
    assert os.environ[onednn.VARIABLE] == "0" and onednn.of_environment() == "off"


def test_prepared_value_is_no_own_variable(started):
    onednn.prepare("on")
    assert onednn.of_environment() == ""
    onednn.release()


def test_run_keeps_what_was_chosen(started, tmp_path):
    run_dir = run_in(tmp_path, "--onednn=off", "--precision=mixed_float16")
    asked = flags.parse([f"--run_dir={run_dir}", "--precision=auto"])
    for mode in ("train", "evaluate", "export"):
        arguments = [f"--run_dir={run_dir}", f"--mode={mode}"]
        assert started.value(*arguments) == "0"
        kept = processor_choices.kept(replaced(asked, mode=mode))
        assert kept.devices.onednn == "off" and kept.precision.precision == "mixed_float16"
    for other in ({"mode": "verify"}, {"resume": "never"}):
        assert processor_choices.kept(replaced(asked, **other)).precision.precision == "auto"


def test_run_of_older_version_stays_as_tensorflow_decides(started, tmp_path):
    run_dir = run_in(tmp_path)
    text = (tmp_path / "config.flags").read_text().replace("--onednn=auto\n", "")
    (tmp_path / "config.flags").write_text(text)
    assert started.value(f"--run_dir={run_dir}") is None


@pytest.fixture
def on(monkeypatch):
    """oneDNN is on, on a Linux machine, without a variable."""
    monkeypatch.setattr(onednn, "state", lambda: "on")
    monkeypatch.setattr(processor_choices, "this_processor", lambda: AVX2)
    monkeypatch.delenv(onednn.VARIABLE, raising=False)


def with_onednn(value, **options):
    return replaced(Config(), onednn=value, **options)


def test_settled(on):
    for asked in ("auto", "on"):
        assert processor_choices.settled(with_onednn(asked)).devices.onednn == "on"


def test_imported_too_early(on):
    with pytest.raises(ValueError, match=r"--onednn=off: .*set TF_ENABLE_ONEDNN_OPTS=0"):
        processor_choices.settled(with_onednn("off"))
    evaluated = with_onednn("off", mode="evaluate")  # scores differ by rounding only
    assert processor_choices.settled(evaluated) == evaluated


def test_variable_against_options(on, monkeypatch):
    monkeypatch.setenv(onednn.VARIABLE, "1")
    config = processor_choices.settled(with_onednn("off"))
    assert config.devices.onednn == "on"
    (line,) = processor_choices.notes(config)
    assert line.startswith("oneDNN is on: the environment has TF_ENABLE_ONEDNN_OPTS=1")
    with pytest.raises(ValueError, match=r"TF_ENABLE_ONEDNN_OPTS=1: the run in .* --onednn=off"):
        processor_choices.settled(with_onednn("off"), resumes=True)


def test_same_command_again_with_variable(on, monkeypatch, tmp_path):
    """A variable that won when the run started wins again, and the run resumes."""
    monkeypatch.setenv(onednn.VARIABLE, "1")
    run_dir = run_in(tmp_path, "--onednn=on")
    kept = processor_choices.kept(flags.parse([f"--run_dir={run_dir}", "--onednn=off"]))
    assert kept.devices.onednn == "on"


def test_system_without_onednn(on, monkeypatch):
    """A run that moves to macOS goes on, keeps the option, and says what holds."""
    monkeypatch.setattr(onednn, "state", lambda: "off")
    monkeypatch.setattr(processor_choices, "this_processor", lambda: APPLE)
    config = processor_choices.settled(with_onednn("on"), resumes=True)
    assert config.devices.onednn == "on"
    (line,) = processor_choices.notes(config)
    assert "none on this system" in line


def test_notes_of_late_import(on, monkeypatch):
    monkeypatch.setattr(onednn, "_calls", [False])
    (line,) = processor_choices.notes(with_onednn("on", model="mlp"))
    assert "imported before" in line and "TF_ENABLE_ONEDNN_OPTS=0" in line
    assert processor_choices.notes(with_onednn("on")) == []


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
