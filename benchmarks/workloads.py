"""The workloads that all contenders train.

This module imports only the standard library, because each contender has its own environment.
"""

from __future__ import annotations

from typing import NamedTuple


class Workload(NamedTuple):
    """A training that is the same for all contenders.

    Images are uint8 [n, 28, 28, 1], divided by 255. The optimizer is Adam with default settings.
    The number of examples is a multiple of the batch size.

    Attributes:
      name: short name, such as W1.
      what: description.
      network: "convolutional": conv 3x3x32, pool, conv 3x3x64, pool, dropout 0.5, dense 10, without
        padding; or "dense": a hidden ReLU layer for each number in `hidden`, then dense 10.
      hidden: units of each hidden layer.
      batch: examples of a step.
      bfloat16: whether layers compute in bfloat16; weights and loss are always float32.
      options: Tapeline's command-line options.
    """

    name: str
    what: str
    network: str
    hidden: tuple[int, ...]
    batch: int
    bfloat16: bool
    options: tuple[str, ...]


EXAMPLES = {128: 59_904, 32: 60_000}  # of MNIST's training split, by batch size
RATE = 0.001
SEED = 0

_CONVOLUTIONAL = ("--model=seed_003", "--global_batch_size=128")
WORKLOADS = {
    each.name: each
    for each in (
        Workload(
            "W1",
            "two convolutions, batch 128, float32",
            "convolutional",
            (),
            128,
            False,
            _CONVOLUTIONAL,
        ),
        Workload(
            "W2",
            "two convolutions, batch 128, bfloat16",
            "convolutional",
            (),
            128,
            True,
            (*_CONVOLUTIONAL, "--precision=mixed_bfloat16"),
        ),
        Workload(
            "W3",
            "logistic regression on 784 inputs, batch 32",
            "dense",
            (),
            32,
            False,
            ("--model=logistic", "--global_batch_size=32"),
        ),
        Workload(
            "W4",
            "two hidden layers of 512, batch 32",
            "dense",
            (512, 512),
            32,
            False,
            ("--model=mlp", "--hidden=512,512", "--global_batch_size=32"),
        ),
    )
}
