"""The breaks that `mutate` tries are breaks of the code as it is, and the table tells of all."""

from __future__ import annotations

import pytest

from tests.laws import mutate
from tests.laws.breaks import BREAKS, LAWS


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: f"{change.law}-{change.why}")
def test_a_break_applies_and_names_tests_that_exist(change):
    assert mutate.applies(change)
    assert change.old != change.new
    assert change.tests
    for test in change.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (mutate.ROOT / path).read_text()


@pytest.mark.parametrize("law", LAWS)
def test_every_law_has_two_breaks_or_more(law):
    assert sum(change.law == law for change in BREAKS) >= 2


def test_every_test_file_of_a_law_was_seen_to_fail():
    laws = mutate.ROOT / "tests" / "laws"
    broken = {test.split("::")[0] for change in BREAKS for test in change.tests}
    others = {"tests/laws/test_breaks.py", "tests/laws/test_product.py"}
    found = {f"tests/laws/{path.name}" for path in laws.glob("test_*.py")}
    assert found - others <= broken


def test_the_table_is_the_one_that_the_breaks_give():
    assert (mutate.ROOT / "tests" / "laws" / "README.md").read_text() == mutate.table()
