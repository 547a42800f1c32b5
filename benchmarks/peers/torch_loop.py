"""Serves a PyTorch training loop on the CPU as a benchmark contender.

    python torch_loop.py W1 mnist.npz '{"compile": false, "channels_last": true}'

compile: whether to use `torch.compile`. channels_last: whether the memory format of images and
weights is `torch.channels_last`. See benchmarks/serve.py.
"""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np
import torch
from serve import serve
from torch import nn
from torch.nn import functional
from workloads import EXAMPLES, RATE, SEED, WORKLOADS, Workload


def model_of(workload: Workload) -> nn.Module:
    """Returns the workload's network, built from PyTorch modules."""
    if workload.network == "convolutional":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(1600, 10),
        )
    widths = [784, *workload.hidden]
    hidden: list[nn.Module] = []
    for width, units in itertools.pairwise(widths):
        hidden += [nn.Linear(width, units), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], 10))


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    workload, variant = WORKLOADS[sys.argv[1]], json.loads(sys.argv[3])
    with np.load(sys.argv[2]) as data:
        count = EXAMPLES[workload.batch]
        images = torch.from_numpy(data["images"][:count].transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(data["labels"][:count].astype(np.int64))
    torch.manual_seed(SEED)
    layout = torch.channels_last if variant["channels_last"] else torch.contiguous_format
    model = model_of(workload).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=workload.bfloat16):
            logits = model(x.to(memory_format=layout))
        loss = functional.cross_entropy(logits.float(), y)
        loss.backward()
        return loss.detach()

    compiled = torch.compile(step) if variant["compile"] else step
    order = torch.randperm(count)
    at, last = 0, torch.zeros(())

    def take(steps: int) -> None:
        nonlocal at, order, last
        for _ in range(steps):
            if at + workload.batch > count:
                order, at = torch.randperm(count), 0
            rows = order[at : at + workload.batch]
            at += workload.batch
            x = images[rows].float().div_(255)
            optimizer.zero_grad(set_to_none=True)
            last = compiled(x, labels[rows])
            optimizer.step()

    take(3)
    serve(take, {"torch": torch.__version__}, lambda: float(last))


if __name__ == "__main__":
    main()
