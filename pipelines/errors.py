"""TensorFlow's errors in one line: its messages go on for pages."""

from __future__ import annotations

import re

import tensorflow as tf

_NOISE = ("Graph execution error", "Detected at node", "File ", "<stack traces", "Traceback")


def reason(error: BaseException) -> str:
    """What a failed operation says, without its stack trace and the names of graph nodes."""
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]|\bname:\s*$", " ", message or "")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    return telling[0][:300] if telling else type(error).__name__


def damaged(where: str, why: str) -> str:
    """One line about data that cannot be read or decoded, and what to do."""
    return f"damaged data in {where}: {why}; delete the data set's folder and prepare it again"
