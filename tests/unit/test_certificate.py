"""The certificate: the root of what is broken comes first, and nothing is claimed that is not."""

from __future__ import annotations

import json
import math

import pytest

from engine.verify.certificate import ROOTS, Certificate, Verdict


def certificate(**passed: bool | None) -> Certificate:
    verdicts = [
        Verdict(law, f"name of {law}", passed.get(law, True), "done", f"found {law}", 0.5, 1, 0.25)
        for law in sorted(ROOTS)
    ]
    return Certificate(tuple(verdicts), {"x": math.inf}, {}, {"device": "CPU"}, {}, 12.3)


def test_all_laws_hold():
    assert certificate().passed
    assert certificate().summary == "PASS: 8 laws hold (12 s)"


def test_a_law_that_cannot_be_told_is_no_failure_and_not_counted():
    summary = certificate(L1=None).summary
    assert summary == "PASS: 7 laws hold, L1 not compared (found L1) (12 s)"


@pytest.mark.parametrize("root", ROOTS)
def test_the_root_is_told_and_what_follows_from_it_is_listed(root):
    later = ROOTS[ROOTS.index(root) + 1 :]
    broken = certificate(**dict.fromkeys([root, *later], False))
    assert not broken.passed and broken.broken == [root, *later]
    also = f"; also broken: {', '.join(later)}" if later else ""
    assert broken.summary == f"FAIL {root} name of {root}: done: found {root}{also}"


def test_a_line_says_what_came_of_a_law():
    tail = {True: "ok", False: "BROKEN", None: "not compared"}
    for passed, words in tail.items():
        line = certificate(L3=passed)["L3"].line
        assert line == f"L3 name of L3: done: found L3 ... {words} 0.2 s"


def test_the_whole_is_one_line_of_json_that_any_reader_takes():
    text = certificate(L7=False, L1=None).json
    assert "\n" not in text
    read = json.loads(text, parse_constant=pytest.fail)
    assert (read["passed"], read["broken"]) == (False, ["L7"])
    assert [law["passed"] for law in read["laws"]] == [None, *[True] * 5, False, True]
    assert read["laws"][6]["measured"] == 0.5 and read["config"] == {"x": None}
