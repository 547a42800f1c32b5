"""Tests the limits on an example's lines of code, without definitions that are not its topic."""

from __future__ import annotations

import ast

import pytest

from tests.examples.jobs import EXAMPLES, JOBS, text_of

# File: the most lines, and names of the definitions that do not count.
BUDGETS = {
    "keras_model": (12, ()),
    "tf_module": (4, ("Perceptron",)),
    "arrays": (6, ()),
    "regression": (8, ()),
    "multi_label": (8, ()),
    "segmentation": (20, ()),
    "text_classification": (12, ("Fives", "text")),
    "character_model": (25, ()),
    "keras_applications": (10, ()),
    "u_net": (30, ()),
    "wide_resnet": (25, ()),
    "text_encoder": (10, ()),
}
PARTS = {"FocalLoss": 6, "sawtooth": 6, "SignDescent": 6}  # of own_training


def lines_of(node: ast.AST, text: str) -> set[int]:
    """Returns the line numbers of a statement, without blank lines, comments and docstrings.

    Args:
      node: the statement.
      text: text of the file.
    """
    numbers = set()
    for each in ast.walk(node):
        if isinstance(each, ast.stmt):
            first = min([each.lineno, *(d.lineno for d in getattr(each, "decorator_list", ()))])
            numbers |= set(range(first, (each.end_lineno or first) + 1))
    for each in ast.walk(node):
        if isinstance(each, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(each):
            numbers -= set(range(each.body[0].lineno, (each.body[0].end_lineno or 0) + 1))
    lines = text.splitlines()
    return {n for n in numbers if lines[n - 1].strip() and lines[n - 1].strip()[0] != "#"}


def statements(name: str) -> dict[str, set[int]]:
    """Returns the result of `lines_of` for each top-level statement of an example, by name.

    Docstring and imports are left out. A statement without a name has the name "line NUMBER".
    """
    text = (EXAMPLES / f"{name}.py").read_text()
    body = ast.parse(text).body[1:]
    counted = [each for each in body if not isinstance(each, ast.Import | ast.ImportFrom)]
    return {getattr(each, "name", f"line {each.lineno}"): lines_of(each, text) for each in counted}


@pytest.mark.parametrize("name", BUDGETS)
def test_lines(name: str):
    most, apart = BUDGETS[name]
    found = statements(name)
    assert found.keys() >= set(apart)
    counted = {each: len(lines) for each, lines in found.items() if each not in apart}
    assert 0 < sum(counted.values()) <= most, counted


@pytest.mark.parametrize("part", PARTS)
def test_lines_of_own_training(part: str):
    assert 0 < len(statements("own_training")[part]) <= PARTS[part]


def test_flags_need_no_code():
    for file in EXAMPLES.glob("*.flags"):
        assert all(line.startswith(("#", "--")) for line in file.read_text().splitlines())


def test_every_example_is_counted_and_listed():
    files = {file.stem for file in EXAMPLES.glob("*.py")}
    assert files == {*BUDGETS, "own_training"}
    page = (EXAMPLES / "README.md").read_text()
    for job in JOBS.values():
        assert f"[`{job.file.name}`]({job.file.name})" in page, job.name
        assert "on two CPU cores" in text_of(job.file), job.name
