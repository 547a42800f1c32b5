"""Reading left_out.jsonl, the record of skipped steps."""

from __future__ import annotations

import json
import math

from engine.trainer.bad_batch_dump import BadBatchRecorder


def test_damaged_line_is_kept(tmp_path):
    """A line that cannot be parsed is kept, and so are the others."""
    recorder = object.__new__(BadBatchRecorder)
    recorder._path = str(tmp_path / "left_out.jsonl")
    assert recorder._lines() == {}
    good, other = (json.dumps({"step": step}).encode() for step in (7, 3))
    damaged = b'{"step": 5, "why": "\xff'
    (tmp_path / "left_out.jsonl").write_bytes(b"\n".join([good, damaged, other]) + b"\n")
    assert recorder._lines() == {good: 7, damaged: math.inf, other: 3}
