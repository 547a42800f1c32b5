"""A transformer decoder that predicts the next id at each position of a sequence, as GPT-2.

Radford et al., 2019, "Language models are unsupervised multitask learners": pre-norm blocks with a
final norm, here with the exact GELU. Embeddings and kernels start from a normal distribution of
standard deviation 0.02, divided by sqrt(2 * blocks) for the kernels whose outputs are added to
their inputs; biases start from 0. Keys have biases, as in the published numbers of parameters; see
`Attention`.
"""

from __future__ import annotations

import math
from typing import Any

from engine.models.base import Layer
from engine.models.layers import (
    Dense,
    Dropout,
    Embedding,
    LayerNorm,
    PositionEmbedding,
    TiedOutput,
    TransformerBlock,
)
from engine.models.layers.kernel import STDDEV
from engine.models.networks.checks import one_tensor


def layers(
    inputs: Any,
    outputs: Any,
    blocks: int,
    heads: int,
    width: int,
    *,
    positions: str,
    tied: bool,
    bias: bool,
    dropout: float,
) -> list[Layer]:
    """Returns the layers of a transformer decoder; see `factories.transformer`.

    Raises:
      ValueError: if an argument is invalid, the inputs are not sequences of ids, or the task does
        not need a vector of logits for each position.
    """
    ids = one_tensor("transformer", "inputs", inputs)
    wanted = one_tensor("transformer", "outputs", outputs)
    if len(ids) != 1 or not inputs.dtype.is_integer:
        raise ValueError(
            "--model=transformer takes sequences of ids, integers [tokens], got"
            f" {inputs.dtype.name} {list(ids)}: give a data set of ids, or another network"
        )
    if len(wanted) != 2 or wanted[0] != ids[0]:
        raise ValueError(
            f"--model=transformer predicts an id at each of {ids[0]} positions, and the task needs"
            f" outputs of shape {wanted}: give a task of shape ({ids[0]}, vocabulary), such as"
            " next_character of examples/character_model.py"
        )
    for flag, value in (("layers", blocks), ("heads", heads), ("width", width)):
        if value < 1:
            raise ValueError(f"--model.{flag}={value}: give an integer of at least 1")
    if width % heads:
        raise ValueError(
            f"--model.heads={heads}: --model.width={width} is divided by the heads; give heads that"
            " divide it"
        )
    rotary = positions == "rotary"
    embedding = Embedding(wanted[-1], width, initializer="normal")
    untied = Dense(wanted[-1], use_bias=False, kernel_initializer="normal")

    def block() -> TransformerBlock:
        return TransformerBlock(
            *(width, heads),
            causal=True,
            dropout=dropout,
            rotary=rotary,
            use_bias=bias,
            key_bias=bias,
            norm_offset=bias,
            kernel_initializer="normal",
            output_stddev=STDDEV / math.sqrt(2 * blocks),
        )

    return [
        embedding,
        *([] if rotary else [PositionEmbedding(initializer="normal")]),
        *([Dropout(dropout)] if dropout else []),
        *(block() for _ in range(blocks)),
        LayerNorm(use_offset=bias),
        TiedOutput(embedding) if tied else untied,
    ]
