"""Factories of the built-in networks that have arguments.

The keyword-only parameters are flags, such as `--model.depth`, and their descriptions are those of
`--help` and the docs. This module does not import TensorFlow, so that the flags are known before;
a factory imports the module of its network when it is called.
"""

from __future__ import annotations

from typing import Any, Literal


def resnet(inputs: Any, outputs: Any, *, depth: int = 20, zero_scale: bool = False) -> list[Any]:
    """Returns the layers of a residual network, for images (He et al. 2016).

    Args:
      inputs: spec (`tf.TensorSpec`) of the inputs of an example.
      outputs: spec of the outputs that the task needs for an example.
      depth: number of layers with weights, 18, 34, 50 or 101 for images of some 224x224, or 20, 32,
        44, 56 or 110 for images of some 32x32.
      zero_scale: whether the last batch norm of each block starts with a scale of 0, so that the
        network starts as its shortcuts (Goyal et al. 2017).
    """
    from engine.models.networks import resnet

    return resnet.layers(inputs, outputs, depth, zero_scale)


def airbench(
    inputs: Any,
    outputs: Any,
    *,
    widths: tuple[int, ...] = (64, 256, 256),
    whitening: int = 2,
    logit_scale: float = 1 / 9,
) -> list[Any]:
    """Returns the layers of airbench94's network, for images of some 32x32 (Jordan 2024).

    Args:
      inputs: spec (`tf.TensorSpec`) of the inputs of an example.
      outputs: spec of the outputs that the task needs for an example.
      widths: numbers of filters of the blocks, each of which halves the images.
      whitening: height and width of the patches that the first layer whitens.
      logit_scale: factor of the outputs.
    """
    from engine.models.networks import airbench

    return airbench.layers(inputs, outputs, widths, whitening, logit_scale)


def vit(
    inputs: Any,
    outputs: Any,
    *,
    size: Literal["Ti", "S", "B"] = "Ti",
    patch: int = 4,
    dropout: float = 0.0,
) -> list[Any]:
    """Returns the layers of a vision transformer (Dosovitskiy et al. 2021, Touvron et al. 2021).

    Args:
      inputs: spec (`tf.TensorSpec`) of the inputs of an example.
      outputs: spec of the outputs that the task needs for an example.
      size: Ti, S or B, 12 blocks of 192, 384 or 768 units, and 3, 6 or 12 heads.
      patch: height and width of the patches, the tokens, into which images are divided.
      dropout: dropout rate of the embeddings, the attention weights and the outputs of attention
        and mlp.
    """
    from engine.models.networks import vit

    return vit.layers(inputs, outputs, size, patch, dropout)


def transformer(
    inputs: Any,
    outputs: Any,
    *,
    layers: int = 4,
    heads: int = 4,
    width: int = 128,
    positions: Literal["learned", "rotary"] = "learned",
    tied: bool = True,
    bias: bool = True,
    dropout: float = 0.0,
) -> list[Any]:
    """Returns the layers of a transformer decoder, for ids (GPT-2, Radford et al. 2019).

    The length of the context is that of the inputs, the vocabulary that of the outputs.

    Args:
      inputs: spec (`tf.TensorSpec`) of the inputs of an example.
      outputs: spec of the outputs that the task needs for an example.
      layers: number of blocks; GPT-2 small has 12.
      heads: number of heads of each attention; GPT-2 small has 12.
      width: number of units of each token; GPT-2 small has 768.
      positions: learned vectors that are added to the embeddings (GPT-2), or rotary embeddings of
        queries and keys (Su et al. 2021).
      tied: whether the table of the embedding is also the kernel of the output layer (Press and
        Wolf 2017).
      bias: whether dense layers and attentions have biases, and norms offsets.
      dropout: dropout rate of the embeddings, the attention weights and the outputs of attention
        and mlp.
    """
    from engine.models.networks import transformer

    return transformer.layers(
        *(inputs, outputs, layers, heads, width),
        positions=positions,
        tied=tied,
        bias=bias,
        dropout=dropout,
    )
