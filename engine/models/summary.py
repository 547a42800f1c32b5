"""Summary of a model as a table: output shape and number of parameters of each layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import tensorflow as tf

from engine.models.sequential import Sequential


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """A row of the summary of a model, for one layer or several consecutive ones."""

    layer: str  # comma-separated labels of the layer and of the following ones without a row
    output_shape: tuple[int, ...]  # without the batch dimension
    parameters: int  # number of parameters, trainable and non-trainable


def rows(model: Sequential) -> list[LayerSummary]:
    """Returns a row for the first layer and each layer that changes the shape or has parameters.

    The label of any other layer (a dropout, an activation) is appended to the preceding row.
    """
    summaries: list[LayerSummary] = []
    shape = model.input_shape
    for layer, output_shape in zip(model.layers, model.output_shapes, strict=True):
        parameters = _count(layer.variables)
        if summaries and output_shape == shape and not parameters:
            last = summaries[-1]
            summaries[-1] = dataclasses.replace(last, layer=f"{last.layer}, {layer.label}")
        else:
            summaries.append(LayerSummary(layer.label, output_shape, parameters))
        shape = output_shape
    return summaries


def table(model: Sequential) -> str:
    """Returns the summary of a model as an aligned text table with total parameters."""
    lines = [("layer", "output shape", "parameters")]
    lines += [(row.layer, str(row.output_shape), f"{row.parameters:,}") for row in rows(model)]
    trainable = _count(model.trainable_variables)
    lines.append(("total trainable", "", f"{trainable:,}"))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    text = "\n".join(
        f"{layer:<{widths[0]}}  {shape:<{widths[1]}}  {parameters:>{widths[2]}}"
        for layer, shape, parameters in lines
    )
    frozen = _count(model.variables) - trainable
    return f"{text} and {frozen:,} non-trainable" if frozen else text


def _count(variables: Iterable[tf.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
