"""Measures training steps of GPT-2 in PyTorch, by `torch.compile`, on a GPU.

    python -m benchmarks.gpu.torch_steps gpt2 [--rehearse]

The network is that of benchmarks/gpu/networks.py, with PyTorch's own attention. It trains on one
batch in device memory.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gpu import timing
from benchmarks.gpu.workloads import GpuWorkload
from benchmarks.torch_blocks import TransformerBlock
from benchmarks.workloads import RATE

_STDDEV = 0.02  # of initial weights


class GPT2(nn.Module):
    """GPT-2 without dropout; the embedding and the last layer share their weights."""

    def __init__(self, context: int, vocabulary: int, depth: int, units: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, units), nn.Embedding(context, units)
        settings = {"causal": True, "gelu": "tanh"}
        blocks = (TransformerBlock(units, heads, **settings) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(units)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into = name.endswith(("projection.weight", "contract.weight"))
                nn.init.normal_(weight, std=_STDDEV / math.sqrt(2 * depth if into else 1))

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean cross entropy of the targets, both int64 [rows, tokens]."""
        x = self.tokens(ids) + self.positions.weight
        logits = functional.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def batch_of(workload: GpuWorkload, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns random ids and targets of a batch, int64 [rows, tokens]."""
    shape = workload.batch, workload.data["context"] + 1
    ids = torch.randint(0, workload.data["vocabulary"], shape, device=device)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def main() -> None:
    """Measures the steps, and prints lines of JSON."""
    args = timing.parser("torch_steps", __doc__).parse_args()
    workload, length = timing.workload_of(args)
    device = "cpu" if args.rehearse else "cuda"
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    model = GPT2(workload.data["context"], **workload.arguments).to(device)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    batch = batch_of(workload, device)

    @torch.compile
    def loss_of(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return model(ids, targets)

    def take(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss_of(*batch).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
            figures["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20

    figures = {
        "workload": workload.name,
        "what": workload.what,
        "contender": "PyTorch",
        "precision": workload.precision,
        "batch": workload.batch,
        "jit": "torch.compile",
        "device": torch.cuda.get_device_name() if device == "cuda" else None,
        "versions": {"torch": torch.__version__},
    }
    timing.measure(take, figures, length)


if __name__ == "__main__":
    sys.exit(main())
