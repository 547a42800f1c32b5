"""Trains the network of recipes/shakespeare.flags in PyTorch, with nanoGPT's settings for CPUs.

    python torch_shakespeare.py ids.npz SEED [STEPS]

ids.npz has `train` and `validation`, the ids of the two texts, uint8, and `vocabulary`, their
number. A batch is windows at random places, as in nanoGPT. Prints one line of JSON: the mean loss
over the windows of the validation text that do not overlap, in nats; the seconds from the first
step to the last; the mean training loss of each 500 steps, as the recipe's; and the version.
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CONTEXT, BATCH, STEPS = 64, 12, 2000
EVERY = 500  # steps of a point of the curve
LAYERS, HEADS, WIDTH = 4, 4, 128
RATE, LAST, WARMUP = 1e-3, 0.1, 100
DECAY, BETAS, CLIP = 0.1, (0.9, 0.99), 1.0


class Block(nn.Module):
    """A pre-norm block: causal attention, then two dense layers; no biases, also in norms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.attention = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.contract = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [rows, tokens, units] to the same shape."""
        rows, tokens, units = x.shape
        together = self.attention(self.norm_1(x)).view(rows, tokens, 3, HEADS, units // HEADS)
        query, key, value = together.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(rows, tokens, units))
        return x + self.contract(functional.gelu(self.expand(self.norm_2(x))))


class Transformer(nn.Module):
    """A decoder with learned positions, whose last layer has the weights of the embedding."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("output.weight", "contract.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * LAYERS) if residual else 1.0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the logits, [rows, tokens, vocabulary], of ids, int64 [rows, tokens]."""
        x = self.tokens(ids) + self.positions.weight
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


def rate(step: int, steps: int) -> float:
    """Returns the learning rate of a step: a linear warmup, then half a cosine."""
    if step < WARMUP:
        return RATE * (step + 1) / WARMUP
    done = (step - WARMUP) / (steps - WARMUP)
    return RATE * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * done)))


def main() -> None:
    """Trains and evaluates a model, and prints the result."""
    arrays, seed = np.load(sys.argv[1]), int(sys.argv[2])
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else STEPS
    train = torch.from_numpy(arrays["train"].astype(np.int64))
    held = torch.from_numpy(arrays["validation"].astype(np.int64))
    torch.manual_seed(seed)
    model = Transformer(int(arrays["vocabulary"]))
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)
    offsets, losses, curve = torch.arange(CONTEXT + 1), [], []
    started = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        windows = train[torch.randint(len(train) - CONTEXT, (BATCH, 1)) + offsets]
        logits = model(windows[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        losses.append(float(loss))
        if not (step + 1) % EVERY or step + 1 == steps:
            curve.append([step + 1, float(np.mean(losses))])
            losses.clear()
    seconds = time.perf_counter() - started
    whole = (len(held) - 1) // CONTEXT * CONTEXT
    inputs, targets = held[:whole].view(-1, CONTEXT), held[1 : whole + 1].view(-1, CONTEXT)
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(inputs), 256):
            logits = model(inputs[start : start + 256]).flatten(0, 1)
            some = targets[start : start + 256].flatten()
            total += float(functional.cross_entropy(logits, some, reduction="sum"))
    found = {"loss": total / whole, "seconds": seconds, "curve": curve}
    count = sum(p.numel() for p in parameters)
    print(json.dumps(found | {"parameters": count, "versions": {"torch": torch.__version__}}))


if __name__ == "__main__":
    main()
