"""Collected metrics for `--load`: one depends on the order of the examples, two raise errors."""

import numpy as np

import tapeline as tl


@tl.metric
def ordered_rank():
    """Returns a metric: the weighted mean of the label's rank; later examples have more weight."""

    def value(labels, logits):
        own = np.take_along_axis(logits, labels[:, np.newaxis], 1)
        return np.average((logits > own).sum(1), weights=1 + np.arange(len(labels)))

    return tl.metrics.collected(value, better="lower")


@tl.metric
def failing_rank():
    """Returns a metric whose function raises an IndexError."""
    return tl.metrics.collected(lambda labels, logits: labels["none"])


@tl.metric
def large_rank():
    """Returns a metric that collects more bytes than its `max_bytes`."""
    return tl.metrics.collected(max, max_bytes=1000)
