"""Records the examples of skipped steps, and which of them have a non-finite image or loss.

run_dir/left_out.jsonl            one JSON object per skipped step
run_dir/left_out/step-120.npz     arrays of its examples: numbers, images, labels, losses
"""

from __future__ import annotations

import io
import json
import math
import os

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts
from engine.core.metrics import jsonable
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.runtime.atomic_files import replace_file
from engine.trainer.bad_steps import BadStep
from pipelines import Examples

_SHOWN = 3  # maximum number of examples with a non-finite image or loss named in a line


class BadBatchRecorder:
    """Inspects the examples of skipped steps, and records each step once.

    Args:
      parts: components of the run.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._dir = parts, parts.config.run.run_dir
        self._path = os.path.join(self._dir, "left_out.jsonl")

    def record(self, bad_step: BadStep) -> str:
        """Records a skipped step, with the losses of its examples under the current weights.

        Returns:
          A line for the user; "" if the step is already recorded.

        Raises:
          OSError: if the record cannot be written.
        """
        lines = self._lines()
        if bad_step.step in lines.values():
            return ""
        parts, config = self._parts, self._parts.config
        source = parts.source
        changes = pipelines.parse_augmentation(
            config.data.augment, source.image_shape, source.dtype
        )
        examples = pipelines.read_step_examples(
            source,
            source.train,
            bad_step.step,
            global_batch_size=config.training.global_batch_size,
            seed=config.run.seed,
            include_next_example=changes is not None and changes.mixes,
        )
        losses = self._losses(examples, bad_step.step)
        sound = np.isfinite(examples.images.reshape(len(losses), -1)).all(1)
        unsound = [
            {
                "example": int(examples.numbers[row]),
                "label": int(examples.labels[row]),
                "image": "finite" if sound[row] else "not finite",
                "loss": float(losses[row]),
            }
            for row in np.flatnonzero(~sound | ~np.isfinite(losses))
        ]
        batch = os.path.join("left_out", f"step-{bad_step.step}.npz")
        self._save(batch, examples, losses)
        split = source.train.name
        found = {
            "step": bad_step.step,
            "epoch": 1 + bad_step.step // parts.steps_per_epoch,
            "why": bad_step.why.words,
            "split": split,
            "unsound": [jsonable(each) for each in unsound],
            "examples": examples.numbers.tolist(),
            "batch": batch,
        }
        lines[json.dumps(found).encode()] = bad_step.step
        in_order = sorted(lines, key=lines.__getitem__)
        replace_file(self._path, b"".join(line + b"\n" for line in in_order))
        named = ", ".join(f"{each['example']} (image {each['image']})" for each in unsound[:_SHOWN])
        more = ", ..." if len(unsound) > _SHOWN else ""
        which = f"; unsound of {split}: example {named}{more}" if unsound else ""
        said = f"step {bad_step.step:,} skipped: {bad_step.why.words}{which}"
        return f"{said}; recorded in {self._path}"

    def _losses(self, examples: Examples, step: int) -> np.ndarray:
        """Returns the loss of each example in evaluation mode, float32 [k]."""
        count, dtype = len(examples.labels), self._parts.config.precision.precision
        batch = pipelines.Batch(
            inputs=tf.constant(examples.images),
            targets=tf.constant(examples.labels),
            mask=tf.ones([count]),
            row=tf.constant(0, tf.int64),
            valid=tf.constant(float(count)),
            epoch=tf.constant(step // self._parts.steps_per_epoch, tf.int64),
            place=tf.constant(0, tf.int64),
        )
        context = ForwardContext(mask=batch.mask, dtype=compute_dtype(dtype))
        losses = self._parts.task(self._parts.model, batch, context).losses
        return tf.cast(losses, tf.float32).numpy().reshape(count, -1).mean(1)

    def _save(self, name: str, examples: Examples, losses: np.ndarray) -> None:
        path, content = os.path.join(self._dir, name), io.BytesIO()
        np.savez(content, **examples._asdict(), losses=losses)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.getvalue())
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error

    def _lines(self) -> dict[bytes, float]:
        """Returns {line: step} of left_out.jsonl; the step of an unreadable line is infinity."""
        try:
            with open(self._path, "rb") as file:
                return {line: _step_of(line) for line in file.read().splitlines()}
        except FileNotFoundError:
            return {}


def _step_of(line: bytes) -> float:
    """Returns the step of a line of left_out.jsonl; infinity if the line is unreadable."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
