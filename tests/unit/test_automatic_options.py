"""Options whose value is "auto" in a process: what is prepared, kept, settled and said."""

from __future__ import annotations

import os
import sys

import pytest

from engine.assembly import automatic_options
from engine.config import flags
from engine.config.schema import Config, replaced
from engine.runtime import onednn
from engine.runtime.processor import Processor

AVX2 = Processor(features=frozenset({"avx", "avx2"}))
APPLE = Processor(features=frozenset({"feat_bf16"}), system="darwin")


class Started:
    """TensorFlow as it starts: not imported, without the variable, on a processor of a test."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(automatic_options, "this_processor", lambda: AVX2)
        monkeypatch.delitem(sys.modules, "tensorflow")
        monkeypatch.delenv(onednn.VARIABLE, raising=False)
        monkeypatch.setattr(onednn, "_prepared", [])
        monkeypatch.setattr(onednn, "_calls", [])

    def value(self, *arguments):
        """Returns the value of the variable while TensorFlow is imported, and removes it again."""
        automatic_options.prepare(arguments)
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
    automatic_options.prepare(["--onednn=on"])
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
        kept = automatic_options.kept(replaced(asked, mode=mode))
        assert kept.devices.onednn == "off" and kept.precision.precision == "mixed_float16"
    for other in ({"mode": "verify"}, {"resume": "never"}):
        assert automatic_options.kept(replaced(asked, **other)).precision.precision == "auto"


def test_run_of_older_version_stays_as_tensorflow_decides(started, tmp_path):
    run_dir = run_in(tmp_path)
    text = (tmp_path / "config.flags").read_text().replace("--onednn=auto\n", "")
    (tmp_path / "config.flags").write_text(text)
    assert started.value(f"--run_dir={run_dir}") is None


@pytest.fixture
def on(monkeypatch):
    """oneDNN is on, on a Linux machine, without a variable."""
    monkeypatch.setattr(onednn, "state", lambda: "on")
    monkeypatch.setattr(automatic_options, "this_processor", lambda: AVX2)
    monkeypatch.delenv(onednn.VARIABLE, raising=False)


def with_onednn(value, **options):
    return replaced(Config(), onednn=value, **options)


def test_settled(on):
    for asked in ("auto", "on"):
        assert automatic_options.settled(with_onednn(asked)).devices.onednn == "on"


def test_imported_too_early(on):
    with pytest.raises(ValueError, match=r"--onednn=off: .*set TF_ENABLE_ONEDNN_OPTS=0"):
        automatic_options.settled(with_onednn("off"))
    evaluated = with_onednn("off", mode="evaluate")  # scores differ by rounding only
    assert automatic_options.settled(evaluated) == evaluated


def test_variable_against_options(on, monkeypatch):
    monkeypatch.setenv(onednn.VARIABLE, "1")
    config = automatic_options.settled(with_onednn("off"))
    assert config.devices.onednn == "on"
    (line,) = automatic_options.notes(config)
    assert line.startswith("oneDNN is on: the environment has TF_ENABLE_ONEDNN_OPTS=1")
    with pytest.raises(ValueError, match=r"TF_ENABLE_ONEDNN_OPTS=1: the run in .* --onednn=off"):
        automatic_options.settled(with_onednn("off"), resumes=True)


def test_same_command_again_with_variable(on, monkeypatch, tmp_path):
    """A variable that won when the run started wins again, and the run resumes."""
    monkeypatch.setenv(onednn.VARIABLE, "1")
    run_dir = run_in(tmp_path, "--onednn=on")
    kept = automatic_options.kept(flags.parse([f"--run_dir={run_dir}", "--onednn=off"]))
    assert kept.devices.onednn == "on"


def test_system_without_onednn(on, monkeypatch):
    """A run that moves to macOS goes on, keeps the option, and says what holds."""
    monkeypatch.setattr(onednn, "state", lambda: "off")
    monkeypatch.setattr(automatic_options, "this_processor", lambda: APPLE)
    config = automatic_options.settled(with_onednn("on"), resumes=True)
    assert config.devices.onednn == "on"
    (line,) = automatic_options.notes(config)
    assert "none on this system" in line


def test_notes_of_late_import(on, monkeypatch):
    monkeypatch.setattr(onednn, "_calls", [False])
    (line,) = automatic_options.notes(with_onednn("on", model="mlp"))
    assert "imported before" in line and "TF_ENABLE_ONEDNN_OPTS=0" in line
    assert automatic_options.notes(with_onednn("on")) == []
