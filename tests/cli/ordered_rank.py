"""A metric that is no sum and depends on the order of the examples; tests give it to `--load`."""

import numpy as np

import tapeline as tl


@tl.metric
def ordered_rank():
    """Returns the mean rank of the label's logit; later examples have larger weights."""

    def value(labels, logits):
        own = np.take_along_axis(logits, labels[:, np.newaxis], 1)
        return np.average((logits > own).sum(1), weights=1 + np.arange(len(labels)))

    return tl.metrics.collected(value, better="lower")


@tl.metric
def failing_rank():
    """Returns a metric whose function fails."""
    return tl.metrics.collected(lambda labels, logits: labels["none"])


@tl.metric
def large_rank():
    """Returns a metric that collects more bytes than it may."""
    return tl.metrics.collected(max, max_bytes=1000)
