"""The variables of a network as a table: shape, dtype, count, training, cast and gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engine.inspection.eager_trace import EagerTrace
from engine.models import properties
from engine.reporting.html_page import ReportTable


class Parameter(NamedTuple):
    """A variable of a network."""

    name: str  # attribute path
    shape: tuple[int, ...]
    dtype: str
    use: str  # "trained", "statistic" or "frozen"
    cast: str  # dtype in which the forward pass uses it; "" if it is not cast
    gradient: float | None  # norm of the gradient in the first step; None: it has none

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def parameters(
    model: tf.Module, trace: EagerTrace, gradients: Mapping[int, tf.Tensor | None]
) -> list[Parameter]:
    """Returns the variables of a model, in the order of its attributes.

    Args:
      model: the model.
      trace: record of a forward pass of the model.
      gradients: gradient of each trainable variable, by `id` of the variable; may be empty.
    """
    statistics = {id(each) for each in properties.statistics(model)}
    rows = []
    for name, variable in properties.named_variables(model).items():
        kind = "statistic" if id(variable) in statistics else "frozen"
        gradient = gradients.get(id(variable))
        norm = None if gradient is None else float(np.linalg.norm(_array(gradient)))
        use = "trained" if variable.trainable else kind
        cast = trace.casts.get(id(variable), "")
        shape = tuple(variable.shape)
        rows.append(Parameter(name, shape, variable.dtype.name, use, cast, norm))
    return rows


def table(rows: list[Parameter]) -> ReportTable:
    """Returns the table of the variables; the last rows are the totals by use, and of all."""
    header = ("parameter", "shape", "dtype", "count", "use", "cast to", "gradient norm")
    lines = [
        (
            row.name,
            "x".join(map(str, row.shape)) or "scalar",
            row.dtype,
            f"{row.elements:,}",
            row.use,
            row.cast or "-",
            "-" if row.gradient is None else f"{row.gradient:.3g}",
        )
        for row in rows
    ]
    totals = [(f"all {use}", use) for use in ("trained", "statistic", "frozen")]
    for label, use in totals:
        if count := sum(row.elements for row in rows if row.use == use):
            lines.append((label, "", "", f"{count:,}", use, "", ""))
    lines.append(("all", "", "", f"{sum(row.elements for row in rows):,}", "", "", ""))
    return ReportTable(header, lines, bold=frozenset([len(lines) - 1]))


def _array(gradient: tf.Tensor | tf.IndexedSlices) -> np.ndarray:
    return tf.convert_to_tensor(gradient).numpy().astype(np.float64)
