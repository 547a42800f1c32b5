"""Tests the command as installed from a wheel, in a folder that contains a user's own modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.choices import seldom

ROOT = Path(__file__).parents[2]
OWN = ("models.py", "figures.py", "config.py", "run.py", "options.py", "tests/__init__.py")
TWO_EPOCHS = ("--dataset=digits", "--epochs=2", "--run_dir=run", "--model=logistic")
MODES = {
    "evaluate": "--split=test[:50]",
    "predict": "--split=test[:5]",
    "export": "--seed=0",
    "report": "--seed=0",
    "benchmark": "--benchmark_steps=20",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel and unzips it to a directory, as an installation does; returns that path."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("tapeline", "engine", "pipelines", "examples", "tests/examples"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=place, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writes a user's modules, which fail if they are imported; returns their folder."""
    for name in OWN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise ImportError('{name} of the user was imported')\n")
    return tmp_path


def _python(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(site), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True
    )


def test_top_level_of_wheel(site: Path):
    """The wheel installs three packages, and no examples or tests."""
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"tapeline", "engine", "pipelines"}
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "tapeline = tapeline.cli:entry" in entry_points.read_text()


def test_modes_of_wheel(site: Path, folder: Path):
    """Training and each of `MODES` work in a folder with a user's modules.

    All run in one process, to save time.
    """
    commands = [TWO_EPOCHS, *((f"--mode={mode}", of, *TWO_EPOCHS) for mode, of in MODES.items())]
    program = (
        "import json, sys, engine, tapeline as tl\n"
        f"assert engine.__file__.startswith({str(site)!r}), engine.__file__\n"
        "print(*(tl.main(each) for each in json.loads(sys.argv[1])), file=sys.stderr)"
    )
    done = _python(site, folder, "-c", program, json.dumps(commands))
    last = done.stderr.splitlines()[-1]
    assert last.split() == ["0"] * len(commands), done.stdout + done.stderr
    assert (folder / "run" / "report.html").exists() and (folder / "run" / "export").exists()


@pytest.mark.parametrize("mode", [seldom("verify"), seldom("tune")])
def test_processes_of_wheel(site: Path, folder: Path, mode: str):
    """`--mode=verify`, which needs virtual devices, and tune, which starts processes, work."""
    done = _python(site, folder, "-m", "tapeline", f"--mode={mode}", *TWO_EPOCHS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["engine.py", "pipelines/__init__.py"])
def test_own_module_of_the_same_name(site: Path, folder: Path, name: str):
    """A user's `engine` or `pipelines` is refused with one error line, and is not imported."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("raise ImportError('of the user')\n")
    done = _python(site, folder, "-m", "tapeline", *TWO_EPOCHS)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "rename it" in line and name.split("/")[0] in line
    assert not (folder / "run").exists()
