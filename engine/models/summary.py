"""Summary of a model as a table: output shape and number of parameters of each layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import tensorflow as tf

from engine.models.base import Layer, Shape
from engine.models.layers.composite import Composite
from engine.models.sequential import Sequential


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """Row of a model's summary, for one layer or several consecutive ones, or for a module.

    In the row of a module, `layer` is the attribute path of the module.
    """

    layer: str  # comma-separated labels of the layer and of the following ones without a row
    output_shape: tuple[int, ...] | None  # without the batch dimension; None: not known
    parameters: int  # number of parameters, trainable and non-trainable


def rows(model: tf.Module) -> list[LayerSummary]:
    """Returns the rows of a model's summary, in the order of its layers.

    There is a row for the first layer and each layer that changes the shape or has parameters; the
    label of any other layer (a dropout, an activation) is appended to the preceding row. The row of
    a residual or a concatenation has 0 parameters, and the rows of the layers inside it follow,
    indented, with the parameters. A model that is not a `Sequential` has a row for each module,
    list or dict that directly contains variables, named by its attribute path.
    """
    if not isinstance(model, Sequential):
        return _modules(model)
    return _rows(model.layers, model.input_shape, model.output_shapes)


def _modules(model: tf.Module) -> list[LayerSummary]:
    flat = model._flatten(predicate=lambda part: isinstance(part, tf.Variable), with_path=True)
    owners: dict[str, list[tf.Variable]] = {}
    for path, variable in flat:
        owner = "/".join(str(part) for part in path).rpartition("/")[0]
        owners.setdefault(owner or model.name, []).append(variable)
    return [LayerSummary(name, None, _count(owned)) for name, owned in owners.items()]


def _rows(
    layers: Sequence[Layer],
    shape: Shape,
    output_shapes: Sequence[Shape],
    prefix: str = "",
    depth: int = 0,
) -> list[LayerSummary]:
    summaries: list[LayerSummary] = []
    last = -1  # index of the row that a layer without one joins
    for layer, output_shape in zip(layers, output_shapes, strict=True):
        parts = layer.parts if isinstance(layer, Composite) else []
        parameters = 0 if parts else _count(layer.variables)
        if last >= 0 and output_shape == shape and not parameters and not parts:
            label = f"{summaries[last].layer}, {layer.label}"
            summaries[last] = dataclasses.replace(summaries[last], layer=label)
        else:
            last = len(summaries)
            summaries.append(LayerSummary(f"{prefix}{layer.label}", output_shape, parameters))
        for part in parts:
            inner = f"{'  ' * (depth + 1)}{part.name}: "
            summaries += _rows(part.layers, shape, part.output_shapes, inner, depth + 1)
        shape = output_shape
    return summaries


def table(model: tf.Module) -> str:
    """Returns the summary of a model as an aligned text table; the last line is the total."""
    lines = [("layer", "output shape", "parameters")]
    lines += [
        (row.layer, str(row.output_shape or "-"), f"{row.parameters:,}") for row in rows(model)
    ]
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
