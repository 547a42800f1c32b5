"""Tests that commands of the docs print no warnings: one command of each mode that uses a run.

`python -m tests.documented --data_dir=DATA_DIR` runs all commands.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import documented
from tests.documented import Documented, commands_of, prepared, run

# One command of each mode on a run, here on the quickstart's run, which needs no download.
USES = ("report", "evaluate", "predict", "export")


def on_the_digits(command: Documented) -> Documented:
    moved = [
        a.replace("runs/mnist", "runs/digits-cnn").replace("[:1000]", "[:100]")  # of 360 examples
        for a in command.arguments
    ]
    return replace(command, arguments=tuple(moved))


def test_readme_prints_no_warning(command, cache_dir, tmp_path):
    quickstart, *_ = commands_of((documented.ROOT / "README.md").read_text(), "README.md")
    assert quickstart.arguments == ("--flagfile=quickstart.flags",)
    of_docs = [each for commands in documented.documented() for each in commands]
    uses = {c.mode: c for c in of_docs if c.mode in USES and "--run_dir=runs/mnist" in c.arguments}
    assert uses.keys() == set(USES)
    place = prepared(tmp_path / "place")
    commands = [quickstart, *map(on_the_digits, uses.values())]
    rows = [run(each, place, command, [f"--cache_dir={cache_dir}"]) for each in commands]
    assert [row for row in rows if not row.good] == []


def test_commands_on_the_digits(command, cache_dir, tmp_path):
    """The commands of a page whose runs need no download work in their order."""
    page = "docs/guide/stopping.md"
    commands = commands_of((documented.ROOT / page).read_text(), page)
    assert len(commands) >= 3
    place = prepared(tmp_path / "place")
    rows = [run(each, place, command, [f"--cache_dir={cache_dir}"]) for each in commands]
    assert [row for row in rows if not row.good] == []


def test_all_modes_documented():
    found = [each for commands in documented.documented() for each in commands]
    assert {each.mode for each in found} == set(documented.MODES)
    assert len(found) >= 20


@pytest.mark.parametrize(
    "line",
    [
        "WARNING:tensorflow:5 out of the last 5 calls triggered tf.function retracing.",
        "W0000 00:00:1795865092.880607   11033 cudart_stub.cc:31] Could not find cuda drivers",
        "lib.py:3: UserWarning: something",
    ],
)
def test_noise_pattern(line):
    assert documented.NOISE.search(f"epoch 1/2\n{line}\n")
    assert not documented.NOISE.search("epoch 1/2: train loss 2.2630, accuracy 20.57%")
