"""`tests.processors`, which runs the tests with the settings of other processors."""

from __future__ import annotations

import json

import pytest

from tests import processors
from tests.cli.command import Command

PLAIN = processors.SETTINGS["sse42_plain"]
TESTS = """
import os, pytest

def test_setting():
    assert {expected}.items() <= os.environ.items()

def test_cores():
    assert len(os.sched_getaffinity(0)) == {cores}

@pytest.fixture
def broken():
    raise OSError

def test_fixture(broken):
    pass

@pytest.mark.skip
def test_skipped():
    pass
"""


def written(place, expected, cores=None):
    """Writes a file of four tests: two may pass, one is skipped, one fails in setup; returns it."""
    path = place / "test_some.py"
    cores = "len(os.sched_getaffinity(os.getppid()))" if cores is None else cores
    path.write_text(TESTS.format(expected=dict(expected), cores=cores))
    return str(path)


def test_reports_results(tmp_path, capsys):
    out = tmp_path / "out"
    tests = written(tmp_path, PLAIN.variables)
    assert processors.main(["--only=sse42_plain", f"--out={out}", "-q", tests]) == 1
    (row,) = json.loads((out / "table.json").read_text())
    assert (row["passed"], row["failed"], row["skipped"]) == (2, 1, 1)
    assert [name.split("::")[1] for name in row["failures"]] == ["test_fixture"]
    assert "test_some.py::test_fixture |" in capsys.readouterr().out


def test_one_core(tmp_path):
    tests = written(tmp_path, {}, cores=1)
    arguments = ["--only=one_core", f"--out={tmp_path}", "-q", tests, "-k", "setting or cores"]
    assert processors.main(arguments) == 0


def test_crashed_session_fails(tmp_path, capsys):
    path = tmp_path / "test_dies.py"
    path.write_text("import os\n\ndef test_good(): pass\n\ndef test_dies(): os.abort()\n")
    assert processors.main(["--only=machine", f"--out={tmp_path}", "-q", str(path)]) == 1
    assert "| 1 | 0 | 0 |" in (said := capsys.readouterr().out) and "ended with -6" in said


def test_session_without_tests_fails(tmp_path):
    tests = written(tmp_path, {})
    arguments = ["--only=machine", f"--out={tmp_path}", "-q", tests, "-k", "nothing"]
    assert processors.main(arguments) == 1


def test_unknown_setting(capsys):
    with pytest.raises(SystemExit) as ended:
        processors.main(["--only=arm"])
    assert ended.value.code == 2 and "avx2" in capsys.readouterr().err


def test_setting_reaches_commands(tmp_path, monkeypatch):
    for name, value in PLAIN.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setenv("TF_CONFIG", "{}")
    environment = Command(tmp_path, "").environment
    assert PLAIN.variables.items() <= environment.items()
    assert environment["TF_NUM_INTRAOP_THREADS"] == "1"
    assert "TF_CONFIG" not in environment
