"""Checks of the first batch, the targets, the first step and the steps on one batch."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly import data
from engine.assembly.data import cache_dir
from engine.assembly.parts import Parts
from engine.config.schema import Config
from engine.inspection.eager_step import EagerStep, depends_on_inputs
from engine.inspection.eager_trace import EagerTrace
from engine.inspection.overfit import Overfit
from engine.inspection.parameters import Parameter
from engine.models.base import ForwardContext
from engine.models.properties import named_variables
from engine.optim.precision import compute_dtype
from engine.runtime.user_code import place
from engine.tasks.language_model import LanguageModel, sees_later_tokens
from engine.tasks.task import Task

_TARGETS = 1024  # maximum number of targets that are compared
_LARGE = 10.0  # root mean square from which inputs are told to be large


def targets(config: Config, source: pipelines.Source) -> list[str]:
    """Returns a line for each tensor of the targets that is the same in all training examples.

    There is also a line if more than half of the examples have a class of their own, as where texts
    that are no class names became classes. At most 1,024 targets are compared, which are spread
    over the split; of a tf.data pipeline, the first ones.

    Raises:
      ValueError: if the data set is damaged.
      OSError: if a file of the data set cannot be read.
    """
    count = min(len(source.train), _TARGETS)
    spread = len(source.train) // count if pipelines.feed_kinds(source) != ("stream",) else 1
    indices = np.arange(count) * spread
    found = pipelines.read_examples(source, source.train, indices, cache_dir(config)).targets
    lines, where = [], data.source_place(config)
    if source.classes > len(source.train) // 2:
        of = f" ({source.features})" if source.features else ""
        lines.append(
            f"{where}{source.name}: {source.classes:,} classes for {len(source.train):,} training "
            f"examples{of}: the target may be a text that names no class"
        )
    paths = pipelines.leaf_paths(source.targets)
    for path, leaf in zip(paths, tf.nest.flatten(found), strict=True):
        if count > 1 and (leaf == leaf.reshape(-1)[0]).all():
            value = leaf.reshape(-1)[0]
            name = f"the target {path}" if path else "the target"
            label = f" ({source.class_names[value]})" if _is_class(source, value) else ""
            lines.append(
                f"{where}{source.name}: {name} is {value}{label} in all of {count:,} training "
                "examples: there is nothing to learn"
            )
    return lines


def _is_class(source: pipelines.Source, value: np.generic) -> bool:
    return source.has_labels and 0 <= int(value) < source.classes


def scale(
    config: Config, source: pipelines.Source, batch: pipelines.Batch, trace: EagerTrace
) -> list[str]:
    """Returns a line for each tensor of the network's inputs with large values.

    These are floating-point tensors, and unscaled images, one of whose last indices (a channel, a
    column) has a root mean square over 10. A network that scales its inputs itself is left out: the
    first products, as many as there are inputs, then have smaller inputs.

    Args:
      config: options of the run.
      source: data set.
      batch: first batch, as the network gets it.
      trace: record of its forward pass.
    """
    lines: list[str] = []
    paths = pipelines.leaf_paths(source.inputs)
    large = [p for p in trace.products[: len(paths)] if p.size > _LARGE]
    if not large:
        return lines
    used = large[0].place or large[0].module
    for path, leaf in zip(paths, tf.nest.flatten(batch.inputs), strict=True):
        image = leaf.dtype == tf.uint8 and leaf.shape.rank == 4
        if not (leaf.dtype.is_floating or image):
            continue
        values = tf.cast(leaf, tf.float64).numpy()
        columns = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.sqrt(np.mean(columns**2, axis=0))
        worst = int(np.nanargmax(sizes)) if np.isfinite(sizes).any() else 0
        if sizes[worst] > _LARGE:
            column = f"[{worst}]" if columns.shape[1] > 1 and not image else ""
            of = columns[:, worst]
            name = f"the input {path}{column}".rstrip()
            lines.append(
                f"{data.source_place(config)}{source.name}: {name} has values from {of.min():g} to "
                f"{of.max():g}, and {large[0].operation} at {used} multiplies it as it is; most "
                "networks learn from inputs near 1 alone: give --scale=unit or "
                "--scale=standardize, or scale it in the source"
            )
    return lines


def step(parts: Parts, found: EagerStep, batch: pipelines.Batch) -> list[str]:
    """Returns lines on what is wrong in the first step.

    They name the operation from which a value that is not finite came, a loss that does not depend
    on the inputs, and trainable variables without a gradient.
    """
    lines = []
    where = _place(parts.task, getattr(parts.model, "made_by", None))
    if not found.finite:
        given = [g for g in found.gradients.values() if g is not None]
        origin = found.trace.origin(found.losses, *given)
        text = origin.text if origin else "an operation outside the trace"
        which = "gradient" if np.isfinite(found.losses.numpy()).all() else "loss"
        lines.append(f"the {which} of the first step is not finite, by {text}")
    elif not depends_on_inputs(parts, batch):
        lines.append(
            f"{where}the loss does not depend on the inputs: other inputs give equal losses"
        )
    return lines


def later_tokens(parts: Parts) -> list[str]:
    """Returns a line if a language model's prediction of a token depends on later tokens."""
    source, task = parts.source, parts.task
    if not (isinstance(task, LanguageModel) and isinstance(source.decoded[0], tf.TensorSpec)):
        return []
    spec = source.decoded[0]
    (context,) = spec.shape
    dtype = compute_dtype(parts.config.precision.precision)
    vocabulary = task.output_spec(source).shape[-1]

    def logits_at(ids: np.ndarray, position: int) -> np.ndarray:
        inputs = source.preprocess(tf.constant(ids, spec.dtype))
        logits = parts.model(inputs, ForwardContext(dtype=dtype))
        found: np.ndarray = tf.cast(logits[:, position], tf.float32).numpy()
        return found

    if context < 2 or not sees_later_tokens(logits_at, context, vocabulary):
        return []
    where = _place(getattr(parts.model, "made_by", None))
    return [
        f"{where}the prediction of a token depends on later tokens, which are its targets: give a "
        "causal network"
    ]


def gradients(parts: Parts, rows: list[Parameter], trained: Overfit | None) -> list[str]:
    """Returns a line on the trainable variables that get no gradient, if there are any.

    These are variables on which the loss does not depend, and those whose gradient in the first
    step is 0 and that the steps on one batch did not change, without the `cancelled_variables` of
    layers.

    Args:
      parts: the run.
      rows: variables of the network.
      trained: steps on one batch; None: none were taken.
    """
    where = _place(getattr(parts.model, "made_by", None), parts.task)
    without = [r.name for r in rows if r.use == "trained" and r.gradient is None]
    unchanged = trained.unchanged if trained else []
    cancelled = _cancelled(parts.model)
    zero = [
        r.name for r in rows if r.gradient == 0 and r.name in unchanged and r.name not in cancelled
    ]
    lines = []
    if without:
        lines.append(f"{where}the loss does not depend on the trainable {', '.join(without)}")
    if zero and trained is not None:
        steps = len(trained.losses)
        lines.append(f"{where}the gradient is 0, also after {steps} steps, of {', '.join(zero)}")
    return lines


def _cancelled(model: tf.Module) -> set[str]:
    """Returns the names of the variables that layers declare as cancelled by the computation."""
    layers = (model, *model.submodules)
    found = {id(each) for layer in layers for each in getattr(layer, "cancelled_variables", ())}
    return {name for name, each in named_variables(model).items() if id(each) in found}


def _place(*parts: object) -> str:
    """Returns the place of the first of a task and a model's factory that is a user's, or ""."""
    written = [type(each) if isinstance(each, Task) else each for each in parts]
    return place(*(each for each in written if each is not None))
