"""A block of a transformer in PyTorch, which the networks of several contenders share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class TransformerBlock(nn.Module):
    """A block of a transformer: attention, then two dense layers, each with a layer norm.

    Args:
      units: size of the residual stream.
      heads: heads of the attention.
      causal: whether a position sees only those before it.
      epsilon: number that layer norms add to the variance.
      gelu: `approximate` of PyTorch's GELU, "none" or "tanh".
    """

    def __init__(
        self, units: int, heads: int, *, causal: bool, epsilon: float = 1e-5, gelu: str = "none"
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.gelu = heads, causal, gelu
        self.norm_1 = nn.LayerNorm(units, eps=epsilon)
        self.attention, self.projection = nn.Linear(units, 3 * units), nn.Linear(units, units)
        self.norm_2 = nn.LayerNorm(units, eps=epsilon)
        self.expand, self.contract = nn.Linear(units, 4 * units), nn.Linear(4 * units, units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [rows, tokens, units] to the same shape."""
        rows, tokens, units = x.shape
        together = self.attention(self.norm_1(x))
        split = together.view(rows, tokens, 3, self.heads, units // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.projection(mixed.transpose(1, 2).reshape(rows, tokens, units))
        expanded = functional.gelu(self.expand(self.norm_2(x)), approximate=self.gelu)
        return x + self.contract(expanded)
