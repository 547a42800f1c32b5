"""Certificate of `--mode=verify`: the root cause of broken laws, and the count of compared laws."""

from __future__ import annotations

import json
import math

import pytest

from engine.verify.certificate import ROOT_CAUSE_ORDER, Certificate, Verdict


def certificate(**passed: bool | None) -> Certificate:
    verdicts = [
        Verdict(law, f"name of {law}", passed.get(law, True), "done", f"found {law}", 0.5, 1, 0.25)
        for law in sorted(ROOT_CAUSE_ORDER)
    ]
    return Certificate(tuple(verdicts), {"x": math.inf}, {}, {"device": "CPU"}, {}, 12.3)


def test_all_laws_hold():
    assert certificate().passed
    assert certificate().summary == "PASS: 8 laws hold (12 s)"


def test_law_not_compared():
    """A law that is not compared is neither a failure nor counted."""
    summary = certificate(L1=None).summary
    assert summary == "PASS: 7 laws hold, L1 not compared (found L1) (12 s)"


@pytest.mark.parametrize("root", ROOT_CAUSE_ORDER)
def test_root_cause_first(root):
    later = ROOT_CAUSE_ORDER[ROOT_CAUSE_ORDER.index(root) + 1 :]
    broken = certificate(**dict.fromkeys([root, *later], False))
    assert not broken.passed and broken.broken == [root, *later]
    also = f"; also broken: {', '.join(later)}" if later else ""
    assert broken.summary == f"FAIL {root} name of {root}: done: found {root}{also}"


def test_verdict_line():
    tail = {True: "ok", False: "BROKEN", None: "not compared"}
    for passed, words in tail.items():
        line = certificate(L3=passed)["L3"].line
        assert line == f"L3 name of L3: done: found L3 ... {words} 0.2 s"


def test_json_is_one_line():
    text = certificate(L7=False, L1=None).json
    assert "\n" not in text
    read = json.loads(text, parse_constant=pytest.fail)
    assert (read["passed"], read["broken"]) == (False, ["L7"])
    assert [law["passed"] for law in read["laws"]] == [None, *[True] * 5, False, True]
    assert read["laws"][6]["measured"] == 0.5 and read["config"] == {"x": None}
