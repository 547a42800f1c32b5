"""Tests that the tutorials do what they say: files, commands, output, errors and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tutorials
from tests.cli.command import Outcome, Warm

MAX_LINES = 150
MAX_BYTES = 120_000
MAX_DIFFERENCE = 0.1  # mean of the absolute difference of two pictures; white and black: 1


@pytest.mark.parametrize("name", tutorials.PAGES)
def test_tutorial(warm: Warm, tmp_path: Path, name: str):
    """A reader's folder, empty at first, becomes what the page says, and the picture appears."""

    def run(folder: Path, words: Sequence[str]) -> Outcome:
        if words[0] == "tapeline":
            return warm.run_in(folder, *words[1:])
        (script,) = words[1:]
        return warm.run_script(folder / script)

    page = (tutorials.FOLDER / f"{name}.md").read_text()
    assert list(tutorials.faults(page, tmp_path, run)) == []
    for picture, path in tutorials.PICTURE.findall(page):
        made, shown = (_grey(place) for place in (tmp_path / path, tutorials.FOLDER / picture))
        assert made.shape == shown.shape
        assert np.abs(made - shown).mean() <= MAX_DIFFERENCE, tmp_path / path


def _grey(path: Path) -> np.ndarray:
    """Returns the picture in a file as grey values from 0 to 1, [height, width]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")) / 255


@pytest.mark.parametrize("name", tutorials.PAGES)
def test_size(name: str):
    """A page is short, and has a picture, which is small."""
    page = (tutorials.FOLDER / f"{name}.md").read_text()
    assert len(page.splitlines()) <= MAX_LINES
    pictures = tutorials.PICTURE.findall(page)
    assert pictures
    for picture, _ in pictures:
        assert (tutorials.FOLDER / picture).stat().st_size < MAX_BYTES


def test_steps():
    page = (
        "```python\n# a.py\nx = 1\n```\nprose\n```\npython a.py\ntapeline --mode=report \\\n"
        "    --run_dir='a b'  # look\n```\n```text\nreport a b\n```\n"
    )
    assert tutorials.steps(page) == [
        tutorials.SourceFile("a.py", "# a.py\nx = 1\n"),
        tutorials.Command(("python", "a.py")),
        tutorials.Command(("tapeline", "--mode=report", "--run_dir=a b"), "report a b\n"),
    ]


@pytest.mark.parametrize(
    "page",
    [
        "```python\nx = 1\n```\n",
        "```text\nx\n```\n",
        "```\npip install x\n```\n",
        "```bash\ntapeline\n```\n",
        "```\ntapeline\n```\n```text\nx\n```\n```text\ny\n```\n",
    ],
)
def test_unknown_blocks(page: str):
    """A block that would not be run is refused."""
    with pytest.raises(ValueError):
        tutorials.steps(page)


PRINTED = "tapeline 1.2.3\nepoch 1/2: loss 1.2345, accuracy 81.25%; 17.3 steps/s\ntest 0.001\n"


@pytest.mark.parametrize(
    "expected",
    [
        "epoch 1/2: loss 1.4, accuracy 83.00%; ... steps/s",
        "tapeline 1.2.3\n...\n  test 0.0492",
        "epoch 1/2: ...\n\ntest 0.001",
    ],
)
def test_printed(expected: str):
    assert tutorials.missing(expected, PRINTED) == []


@pytest.mark.parametrize(
    "expected",
    [
        "epoch 2/2: ...",
        "epoch 1/2: loss 1.9, ...",
        "tapeline 1.2.4",
        "epoch 1/2",
        "test 0.001\ntapeline 1.2.3",
        "... accuracy 50.00%; ...",
        "... accuracy 0.8125%; ...",
        "test -0.2",
    ],
)
def test_not_printed(expected: str):
    assert tutorials.missing(expected, PRINTED)
