"""Records the examples of skipped steps, and which examples have non-finite values or losses.

run_dir/left_out.jsonl            one JSON object per skipped step
run_dir/left_out/step-120.npz     examples of a step: indices in the split, inputs, targets, losses
"""

from __future__ import annotations

import io
import json
import math
import os
from typing import Any

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.data import cache_dir
from engine.assembly.parts import Parts
from engine.core.augmentation import preprocessed
from engine.core.metrics import jsonable
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.runtime.atomic_files import replace_file
from engine.trainer.bad_steps import BadStep
from pipelines import Examples

_SHOWN = 3  # maximum number of examples with non-finite values or losses named in a line


class BadBatchRecorder:
    """Writer of the examples and losses of skipped steps to the run directory, each step once."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._dir = parts, parts.config.run.run_dir
        self._path = os.path.join(self._dir, "left_out.jsonl")

    def record(self, bad_step: BadStep) -> str:
        """Records a skipped step: its examples, and their losses under the current weights.

        Returns:
          A message that describes the step; "" if the step is already recorded.

        Raises:
          OSError: if the record cannot be written, or a file of the data set cannot be read.
          ValueError: if a file of the data set is damaged.
        """
        step, reason = bad_step.step, bad_step.reason.label
        lines = self._lines()
        if step in lines.values():
            return ""
        examples = self._examples(step)
        losses = self._losses(examples, step)
        finite = _finite(examples)
        unsound = [
            {
                "example": int(examples.indices[row]),
                **self._label(examples, int(row)),
                self._kind: "finite" if finite[row] else "not finite",
                "loss": float(losses[row]),
            }
            for row in np.flatnonzero(~finite | ~np.isfinite(losses))
        ]
        batch = os.path.join("left_out", f"step-{step}.npz")
        self._save(os.path.join(self._dir, batch), examples, losses)
        split = self._parts.source.train.name
        record = {
            "step": step,
            "epoch": 1 + step // self._parts.steps_per_epoch,
            "why": reason,
            "split": split,
            "unsound": [jsonable(each) for each in unsound],
            "examples": examples.indices.tolist(),
            "batch": batch,
        }
        lines[json.dumps(record).encode()] = step
        in_order = sorted(lines, key=lines.__getitem__)
        replace_file(self._path, b"".join(line + b"\n" for line in in_order))
        named = ", ".join(
            f"{each['example']} ({self._kind} {each[self._kind]})" for each in unsound[:_SHOWN]
        )
        more = ", ..." if len(unsound) > _SHOWN else ""
        which = f"; unsound of {split}: example {named}{more}" if unsound else ""
        return f"step {step:,} skipped: {reason}{which}; recorded in {self._path}"

    def _examples(self, step: int) -> Examples:
        source, config = self._parts.source, self._parts.config
        augmentation = pipelines.augmentation_of(config.data.augment, source)
        return pipelines.read_step_examples(
            source,
            source.train,
            step,
            global_batch_size=config.training.global_batch_size,
            seed=config.run.seed,
            include_next_example=augmentation is not None and augmentation.mixes,
            cache_dir=cache_dir(config),
        )

    def _losses(self, examples: Examples, step: int) -> np.ndarray:
        """Returns each example's loss under the current weights, in evaluation, float32 [k].

        The examples are evaluated in chunks of those of one device, or one by one if that fails.
        They are nan where TensorFlow fails, for example when it runs out of memory.
        """
        count, layout = len(examples.indices), self._parts.loop.feed.layout
        chunk = -(-count // (layout.all_shards * layout.micro_batches))
        return np.concatenate(
            [
                self._losses_of(examples.part(start, start + chunk), step)
                for start in range(0, count, chunk)
            ]
        )

    def _losses_of(self, examples: Examples, step: int) -> np.ndarray:
        """Returns the losses of a chunk of examples, float32 [k]; nan if TensorFlow fails."""
        count, dtype = len(examples.indices), self._parts.config.precision.precision
        epoch = step // self._parts.steps_per_epoch
        decoded = pipelines.unpadded_batch(examples.inputs, examples.targets, count, epoch)
        batch = preprocessed(decoded, None, self._parts.source.preprocess)
        context = ForwardContext(mask=batch.mask, dtype=compute_dtype(dtype))
        try:
            losses = self._parts.task(self._parts.model, batch, context).losses
        except tf.errors.OpError:  # such as out of memory: the record is made without losses
            return np.full(count, np.nan, np.float32)
        return tf.cast(losses, tf.float32).numpy()

    @property
    def _kind(self) -> str:
        """Name of an example's inputs in records: "image" if they are one image, else "inputs"."""
        return "image" if self._parts.source.has_images else "inputs"

    def _label(self, examples: Examples, row: int) -> dict[str, int]:
        """Returns the label of an example, such as {"label": 3}; {} if targets are not classes."""
        return {"label": int(examples.targets[row])} if self._parts.source.has_labels else {}

    def _named(self, examples: Examples) -> dict[str, np.ndarray]:
        """Returns the inputs and targets as arrays [k, ...] by name.

        The names are "images" and "labels" for images with class labels. Else they are the paths of
        the arrays in {"inputs": inputs, "targets": targets}, such as "inputs.ids".
        """
        source = self._parts.source
        if source.has_images and source.has_labels:
            return {"images": examples.inputs, "labels": examples.targets}
        nest = {"inputs": examples.inputs, "targets": examples.targets}
        leaves = zip(pipelines.leaf_paths(nest), tf.nest.flatten(nest), strict=True)
        return {path.replace("/", "."): leaf for path, leaf in leaves}

    def _save(self, path: str, examples: Examples, losses: np.ndarray) -> None:
        content = io.BytesIO()
        arrays: dict[str, Any] = self._named(examples)
        np.savez(content, numbers=examples.indices, **arrays, losses=losses)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.getvalue())
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error

    def _lines(self) -> dict[bytes, float]:
        """Returns {line: step} of left_out.jsonl; {} without this file.

        The step of a line that cannot be parsed is infinity.
        """
        try:
            with open(self._path, "rb") as file:
                return {line: _step_of(line) for line in file.read().splitlines()}
        except FileNotFoundError:
            return {}


def _finite(examples: Examples) -> np.ndarray:
    """Returns whether all inputs and targets of each example are finite, bool [k]."""
    finite = np.ones(len(examples.indices), bool)
    for leaf in tf.nest.flatten((examples.inputs, examples.targets)):
        finite &= np.isfinite(leaf.reshape(len(finite), -1)).all(1)
    return finite


def _step_of(line: bytes) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
