"""Implements `--mode=predict`: writes the predictions of a trained network for files or a split."""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.data import cache_dir, open_source
from engine.assembly.trained import TrainedModel, trained_model
from engine.config.schema import Config, replaced
from engine.core.metrics import jsonable
from engine.logging.progress import Progress
from engine.models.build import described
from engine.models.tracing import fits
from engine.runtime.atomic_files import replace_file
from engine.runtime.signals import Signals
from engine.serving import inputs, sample_command
from engine.serving.entries import PredictionRequest, csv_table, entry, picture, summary_line
from engine.serving.module import predict

_BATCH = 256  # examples per batch
_PRINTED = 50  # maximum number of predictions that are printed
_DRAWN = 100  # maximum number of images in predictions.png
_MAX_BYTES = 512 << 20  # maximum size of predictions.npz


def run(config: Config) -> int:
    """Predicts the examples of `--inputs` or `--split`; prints and writes the predictions.

    With `--prompt`, continues that text, as `sample_command.run`.

    Writes predictions.json and predictions.csv; for images, also predictions.png. In
    classification, these have the most probable classes by name. In other tasks, they have the
    predictions of at most 64 values per example, and predictions.npz has all predictions. If no
    file can be read, only predictions.json is written. Prints the first predictions, an error for
    each unreadable file, and a summary as JSON. After a signal before the last batch, no file is
    written.

    Returns:
      The exit status: 128 + the number of a received signal; else 1 if a file cannot be read (all
      other files are predicted); else 0.

    Raises:
      ValueError: if not exactly one of `--inputs`, `--split` and `--prompt` is given, an input or
        the split does not exist, the data set is damaged, the run has no weights that `--weights`
        selects, the options are those of another network, the devices cannot be used, or image
        files cannot be converted to the inputs.
      OSError: if the checkpoint is damaged, the data set cannot be read, or a file cannot be
        written.
      tf.errors.OpError: if TensorFlow fails, such as when a device runs out of memory.
    """
    asked = config.serving.inputs, config.report.split, config.serving.prompt
    if sum(map(bool, asked)) != 1:
        raise ValueError(
            "give --inputs=FILES, --split=SPLIT or --prompt=TEXT to predict, one of them"
        )
    paths = inputs.files(config.serving.inputs) if config.serving.inputs else []
    with Signals() as signals:
        trained = trained_model(
            config,
            reads_data=bool(config.report.split),
            interrupted=lambda: bool(signals.received),
        )
        print(
            f"predicting by {trained.description}, {trained.path}, on {trained.device}", flush=True
        )
        if config.serving.prompt:
            return sample_command.run(trained, signals)
        failed: list[inputs.InputFile] = []
        requests = _of_files(trained, paths, failed) if paths else _of_split(trained)
        predictions: list[dict[str, Any]] = []
        arrays: list[dict[str, np.ndarray]] = []
        drawn: list[PredictionRequest] = []
        predicted = _traced(trained)
        while batch := list(itertools.islice(requests, _BATCH)):
            if signals.received:
                return signals.exit_status
            found = {name: each.numpy() for name, each in predicted(_stacked(batch)).items()}
            predictions += map(functools.partial(entry, trained), batch, _rows(found, len(batch)))
            arrays.append(found)
            drawn += batch[: _DRAWN - len(drawn)]
        for each in failed:
            print(f"error: {each.name} {each.error}", file=sys.stderr)
        print(_write(trained, predictions, arrays, failed, drawn), flush=True)
        summary: dict[str, Any] = {"predicted": len(predictions), "failed": len(failed)}
        if correct := [each["right"] for each in predictions if "right" in each]:
            summary |= {"right": sum(correct), "accuracy": sum(correct) / len(correct)}
        if views := config.evaluation.evaluation_views:
            summary |= {"evaluation_views": views}
        print(json.dumps(summary))
        return signals.exit_status or int(bool(failed))


def _traced(trained: TrainedModel) -> Any:
    @tf.function(autograph=False, reduce_retracing=True)
    def predicted(inputs: Any) -> dict[str, tf.Tensor]:
        return predict(trained.model, trained.task, trained.source, inputs, trained.dtype)

    return predicted


def _stacked(batch: list[PredictionRequest]) -> Any:
    return tf.nest.map_structure(
        lambda *rows: tf.constant(np.stack(rows)), *(r.inputs for r in batch)
    )


def _rows(found: dict[str, np.ndarray], rows: int) -> list[dict[str, np.ndarray]]:
    return [{name: each[row] for name, each in found.items()} for row in range(rows)]


def _of_files(
    trained: TrainedModel, paths: list[str], failed: list[inputs.InputFile]
) -> Iterator[PredictionRequest]:
    config, source = trained.config, trained.source
    if source.has_images:
        measured = pipelines.ImageFormat.from_json(trained.image_format)
        spec = pipelines.image_spec(source, measured, config.serving.invert)
        read = functools.partial(inputs.images, spec=spec)
    else:
        read = functools.partial(inputs.arrays, spec=source.decoded[0])
    progress = Progress(config.logging.progress, "predicting", len(paths), unit="files")
    for each in read(paths):
        if each.inputs is None:
            failed.append(each)
        else:
            yield PredictionRequest(each.name, each.inputs)
        progress.advance(1)
    progress.close()


def _of_split(trained: TrainedModel) -> Iterator[PredictionRequest]:
    config = trained.config
    source = open_source(replaced(config, test_split=config.report.split))
    split = source.test
    assert split is not None, "a split was asked for"
    given, taken = source.decoded[0], trained.source.decoded[0]
    if not fits(given, taken):
        raise ValueError(
            f"--split={config.report.split}: its inputs are {described(given)}, and those of the "
            f"network in {config.run.run_dir} {described(taken)}"
        )
    progress = Progress(config.logging.progress, "predicting", len(split), unit="examples")
    for start in range(0, len(split), _BATCH):
        indices = np.arange(start, min(start + _BATCH, len(split)))
        examples = pipelines.read_examples(source, split, indices, cache_dir(config))
        for row, index in enumerate(indices):
            one = tf.nest.map_structure(lambda each: each[row], examples.inputs)  # noqa: B023
            label = ""
            if source.has_labels:
                label = _label_name(trained, source.class_names, int(examples.targets[row]))
            yield PredictionRequest(f"{split.name}[{index}]", one, label)
        progress.advance(len(indices))
    progress.close()


def _label_name(trained: TrainedModel, names: Sequence[str], label: int) -> str:
    """Returns the class name of a label; "" if the label has no class, or one that the run ignores.

    `names` are the class names of the split, which may be in another order than those of the run.
    """
    if not 0 <= label < len(names):
        return ""
    ignored = trained.task.ignore_label
    of_run = dict(enumerate(trained.source.class_names))
    return "" if ignored is not None and names[label] == of_run.get(ignored) else names[label]


def _write(
    trained: TrainedModel,
    predictions: list[dict[str, Any]],
    arrays: list[dict[str, np.ndarray]],
    failed: list[inputs.InputFile],
    drawn: list[PredictionRequest],
) -> str:
    """Prints the first predictions and writes all to files; returns a line with the paths."""
    config = trained.config
    for each in predictions[:_PRINTED]:
        print(summary_line(each))
    if len(predictions) > _PRINTED:
        print(f"... and {len(predictions) - _PRINTED:,} more")
    folder = config.serving.predictions or os.path.join(config.run.run_dir, "predictions")
    os.makedirs(folder, exist_ok=True)
    errors = [{"input": each.name, "error": each.error} for each in failed]
    text = json.dumps(jsonable({"predictions": predictions, "errors": errors}), indent=1)
    replace_file(os.path.join(folder, "predictions.json"), text + "\n")
    if not predictions:
        return f"nothing could be predicted: {folder}/predictions.json says why"
    written = ["predictions.csv", ".json"]
    replace_file(os.path.join(folder, "predictions.csv"), csv_table(predictions))
    if "class" not in predictions[0]:
        path = os.path.join(folder, "predictions.npz")
        np.savez(path, **_concatenated(arrays))  # type: ignore[arg-type]
        written.append(".npz")
    if trained.source.has_images:
        image = picture(predictions, drawn)
        replace_file(os.path.join(folder, "predictions.png"), image)
        written.append(".png")
    noun = "pictures" if trained.source.has_images else "examples"
    files = f"{', '.join(written[:-1])} and {written[-1]}"
    return f"predictions of {len(predictions):,} {noun}: {folder}/{files}"


def _concatenated(arrays: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenates the predictions of all batches; returns {name: [n, ...]}."""
    return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}
