"""What a step that is left out had seen: its examples, which of them are unsound, and a record.

run_dir/left_out.jsonl            one JSON object a step
run_dir/left_out/step-120.npz     its examples: number, image, label, loss of each
"""

from __future__ import annotations

import io
import json
import os
from typing import Any

import numpy as np
import tensorflow as tf

import models
import pipelines
from engine.assembly import Parts
from engine.keeping.files import replace_file
from engine.metrics import jsonable
from engine.numerics.precision import compute_dtype
from engine.training.guard import Fault
from pipelines import Examples

_SHOWN = 3  # unsound examples named in a line


class Inspector:
    """Looks at steps and keeps what it finds; once a step, however often it is asked.

    Args:
      parts: of the run.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._dir = parts, parts.config.run.run_dir
        self._path = os.path.join(self._dir, "left_out.jsonl")

    def record(self, fault: Fault) -> str:
        """Records a step, with the weights as they are now.

        Returns:
          A line about it for a person; empty where it is recorded already.

        Raises:
          OSError: when it cannot be written.
        """
        rows = self._rows()
        if any(row.get("step") == fault.step for row in rows):
            return ""
        parts, config = self._parts, self._parts.config
        source = parts.source
        changes = pipelines.augmentation(config.data.augment, source.image_shape, source.dtype)
        examples = pipelines.examples_of_step(
            source,
            source.train,
            fault.step,
            global_batch_size=config.training.global_batch_size,
            seed=config.run.seed,
            look_ahead=changes is not None and changes.mixes,
        )
        losses = self._losses(examples, fault.step)
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
        batch = os.path.join("left_out", f"step-{fault.step}.npz")
        self._save(batch, examples, losses)
        split = source.train.name
        found = {
            "step": fault.step,
            "epoch": 1 + fault.step // parts.steps_per_epoch,
            "why": fault.why.words,
            "split": split,
            "unsound": [jsonable(each) for each in unsound],
            "examples": examples.numbers.tolist(),
            "batch": batch,
        }
        rows = sorted([*rows, found], key=lambda row: row["step"])
        replace_file(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        named = ", ".join(f"{each['example']} (image {each['image']})" for each in unsound[:_SHOWN])
        more = ", ..." if len(unsound) > _SHOWN else ""
        which = f"; unsound of {split}: example {named}{more}" if unsound else ""
        return f"step {fault.step:,} left out: {fault.why.words}{which}; recorded in {self._path}"

    def _losses(self, examples: Examples, step: int) -> np.ndarray:
        """Of each example on its own, float32 [k], evaluated: no row has to do with another."""
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
        call = models.Pass(mask=batch.mask, dtype=compute_dtype(dtype))
        losses = self._parts.task(self._parts.model, batch, call).losses
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

    def _rows(self) -> list[dict[str, Any]]:
        try:
            with open(self._path, encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        except (FileNotFoundError, ValueError):
            return []
