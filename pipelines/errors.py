"""Shortens error messages, which can be pages long, to one line; formats messages on damage."""

from __future__ import annotations

import re

import tensorflow as tf

# Of several errors, TensorFlow's message has their number, and then "(0) CODE: MESSAGE".
_GRAPH = (
    r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]|\bname:\s*$"
    r"|(?m:^[ \t]*(\d+ root error\(s\) found\.|\(\d+\) [A-Z_]+:))"
)
_NOISE = ("Graph execution error", "Detected at node", "File ", "<stack traces", "Traceback")


def one_line_message(error: BaseException, limit: int = 300) -> str:
    """Returns the message of an error on one line of at most `limit` characters.

    A longer message is cut and ends with "...". For an error without a message, the result is the
    name of the error's class.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def reason(error: BaseException) -> str:
    """Returns the first informative line of an error's message, without graph node names.

    A line is informative if it is not empty and does not start like a line of a traceback, such as
    "Detected at node". The result is cut after 300 characters. If no line is informative, the
    result is the name of the error's class.
    """
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = re.sub(_GRAPH, " ", message or "")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    informative = (line[:300] for line in lines if line and not line.startswith(_NOISE))
    return next(informative, type(error).__name__)


PREPARE_AGAIN = "delete the data set's folder and prepare it again"


def damaged_data_message(location: str, cause: str, remedy: str = PREPARE_AGAIN) -> str:
    """Returns a one-line error message for data that cannot be read or decoded, with the remedy."""
    return f"damaged data in {location}: {cause}; {remedy}"
