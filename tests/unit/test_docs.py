"""Options, their table, the changelog and the names of classes agree with the code and the docs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import engine
from engine.config import flags

ROOT = Path(__file__).parents[2]
PATH = re.compile(
    r"`((?:engine|pipelines|tapeline|tests|benchmarks|docs|recipes|examples)/[\w/.]+)`"
)


def test_options_table_is_current():
    assert (ROOT / "docs" / "options.md").read_text() == flags.table()


def test_documented_options_exist():
    texts = [
        ROOT / "README.md",
        ROOT / "BUILD.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*.flags"),
        *ROOT.glob("recipes/*.[fm]*"),
    ]
    others = {
        "nodes",
        "ntasks-per-node",
        "gpus-per-node",
        "resv-ports",
        # of `python -m benchmarks.compare` and `benchmarks.real.check`
        *("engine", "place", "workloads", "precisions", "starts", "only", "readme"),
        "without-pip",
        "python",
        "install",
        "no-deps",
        "no-index",
        "find-links",
        "logdir",
        "check",
        "pictures",
        "flagfile",
        "help",
        "name",
        "kills",
        "configurations",
        "sequences",
        "sweep",
        "signal",
        "keras",
        "dist",
        "rounds",
        "seconds",
        "seeds",
        "times",
        "out",
        "rehearse",
        "part",
        "list",
    }
    for text in texts:
        named = set(re.findall(r"--([a-z][\w-]+)", text.read_text()))
        assert not named - set(flags.option_names()) - others, text.name


def test_changelog_has_version():
    assert f"## {engine.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_named_files_exist():
    missing = {
        path: str(text.relative_to(ROOT))
        for text in ROOT.glob("[!.]*/**/*.md")
        for path in PATH.findall(text.read_text())
        if not (ROOT / path).exists()
    }
    assert missing == {}


def test_public_class_names_are_unique():
    places: dict[str, list[str]] = {}
    for package in ("engine", "pipelines", "tapeline"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
