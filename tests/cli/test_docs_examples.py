"""Tests that the Python code blocks of the docs run without changes.

Those of the tutorials are files, which `test_tutorials` writes and uses.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY, Warm

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    str(path.relative_to(REPOSITORY))
    for path in (REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md"))
    if BLOCK.search(path.read_text()) and path.parent.name != "tutorials"
)
EXPORTED = "docs/guide/predict.md"  # its block loads the export of a run
IMAGES = "import numpy as np\nimages = np.zeros([2, 8, 8, 1], np.uint8)\n"


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(warm: Warm, tmp_path: Path, page: str):
    if page == EXPORTED:
        run_dir = tmp_path / "runs" / "mnist"
        warm.train(run_dir, "--model=logistic", "--epochs=1")
        assert warm.run("--mode=export", f"--run_dir={run_dir}").status == 0
    for block in BLOCK.findall((REPOSITORY / page).read_text()):
        script = tmp_path / "script.py"
        script.write_text((IMAGES if page == EXPORTED else "") + block)
        ran = warm.run_script(script)
        assert ran.status == 0, ran.said()
