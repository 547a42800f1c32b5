"""One-line messages of TensorFlow's errors, which are pages long."""

from __future__ import annotations

import re

import tensorflow as tf

_NOISE = ("Graph execution error", "Detected at node", "File ", "<stack traces", "Traceback")


def reason(error: BaseException) -> str:
    """Returns the message of a failed operation, without stack trace and names of graph nodes."""
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]|\bname:\s*$", " ", message or "")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    return telling[0][:300] if telling else type(error).__name__


def damaged_data_message(where: str, why: str) -> str:
    """Returns a one-line message about data that cannot be read or decoded, with the remedy."""
    return f"damaged data in {where}: {why}; delete the data set's folder and prepare it again"
