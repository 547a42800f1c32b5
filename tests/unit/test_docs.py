"""The docs say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import engine
from engine import flags

ROOT = Path(__file__).parents[2]


def test_the_table_of_options_is_the_one_that_the_code_gives():
    assert (ROOT / "OPTIONS.md").read_text() == flags.table()


def test_every_option_that_the_docs_name_exists():
    texts = [
        ROOT / "README.md",
        ROOT / "BUILD.md",
        *ROOT.glob("*.flags"),
        *ROOT.glob("recipes/*.[fm]*"),
    ]
    others = {
        "nodes",
        "ntasks-per-node",
        "gpus-per-node",
        "resv-ports",
        "without-pip",
        "python",
        "logdir",
        "check",
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
    }
    for text in texts:
        named = set(re.findall(r"--([a-z][\w-]+)", text.read_text()))
        assert not named - set(flags._options()) - others, text.name


def test_the_changelog_has_this_version():
    assert f"## {engine.__version__}" in (ROOT / "CHANGELOG.md").read_text()
