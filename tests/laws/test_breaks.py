"""Tests that the breaks of `breaks.py` apply to the current code and are listed in README.md."""

from __future__ import annotations

import pytest

from tests.laws import mutate
from tests.laws.breaks import BREAKS, LAWS


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: f"{change.law}-{change.why}")
def test_break_applies(change):
    """The text that a break replaces occurs once in the current code, and its tests exist."""
    assert mutate.applies(change)
    assert change.old != change.new
    assert change.tests
    for test in change.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (mutate.ROOT / path).read_text()


@pytest.mark.parametrize("law", LAWS)
def test_two_breaks_per_law(law):
    assert sum(change.law == law for change in BREAKS) >= 2


def test_every_file_has_a_break():
    """Each test file in tests/laws that tests a single law has at least one break."""
    laws = mutate.ROOT / "tests" / "laws"
    broken = {test.split("::")[0] for change in BREAKS for test in change.tests}
    others = {f"test_{name}.py" for name in ("breaks", "product", "pairs", "verify")}
    found = {
        f"tests/laws/{path.name}" for path in laws.glob("test_*.py") if path.name not in others
    }
    assert found <= broken


def test_readme_is_current():
    """tests/laws/README.md is equal to the text that `mutate.table` returns."""
    assert (mutate.ROOT / "tests" / "laws" / "README.md").read_text() == mutate.table()
