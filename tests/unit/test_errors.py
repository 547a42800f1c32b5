"""Shortening of TensorFlow's error messages to one line."""

from __future__ import annotations

import pytest
import tensorflow as tf

from pipelines import reason


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("corrupted record at 0 [Op:IteratorGetNext] name: ", "corrupted record at 0"),
        ("{{function_node __wrapped__X_device_/job:a}} truncated record", "truncated record"),
        (
            "Graph execution error:\n\nDetected at node A defined at (most recent call last):\n"
            '  File "x.py", line 1, in y\n<stack traces unavailable>\nOut of memory\n'
            "\t [[{{node A}}]] [Op:__inference_z]",
            "Out of memory",
        ),
        (
            "2 root error(s) found.\n  (0) INVALID_ARGUMENT:  No such row\n\t [[{{node A}}]]\n"
            "  (1) INVALID_ARGUMENT:  No such row\n0 successful operations.",
            "No such row",
        ),
        ("", "InternalError"),
    ],
)
def test_short_reason(message, expected):
    assert reason(tf.errors.InternalError(None, None, message)) == expected
