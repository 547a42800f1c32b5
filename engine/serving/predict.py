"""`--mode=predict`: predicts the classes of image files or of a split."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.data import cache_dir, open_source
from engine.assembly.parts import Parts
from engine.assembly.trained import restored
from engine.config.schema import Config, replaced
from engine.logging.progress import Progress
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.runtime.atomic_files import replace_file
from engine.runtime.signals import Signals
from engine.serving import inputs

_BATCH = 256  # images per batch
_PRINTED = 50  # maximum number of predictions that are printed
_DRAWN = 100  # maximum number of images in predictions.png
_REFERENCE = 256  # maximum number of training images that define the background and ink layout


class PredictionRequest(NamedTuple):
    """An image whose class is to be predicted."""

    name: str  # path of the file, or "SPLIT[INDEX]"
    image: np.ndarray  # [H, W, C] at the network's input size
    label: int = -1  # class index; -1: unknown


def run(config: Config) -> int:
    """Predicts the classes of images; prints them, writes predictions.csv, .json and .png.

    Returns the exit status: 128 + the number of a received signal; else 1 if a file cannot be read
    (all other files are predicted); else 0.

    Raises:
      ValueError: if not exactly one of --inputs and --split is given, an input does not exist, or
        the run has no weights that --weights selects.
      OSError: if the checkpoint is damaged or a file cannot be written.
    """
    if bool(config.serving.inputs) == bool(config.report.split):
        raise ValueError("give --inputs=FILES or --split=SPLIT to predict, one of them")
    paths = inputs.files(config.serving.inputs) if config.serving.inputs else []
    with Signals() as signals, restored(config) as restored_run:
        parts = restored_run.parts
        weights = f"{restored_run.description}, {restored_run.path}"
        print(f"predicting by {weights}, on {parts.device}", flush=True)
        failed: list[inputs.InputFile] = []
        requests = _of_files(parts, paths, failed) if paths else _of_split(parts)
        predictions: list[dict[str, Any]] = []
        drawn: list[PredictionRequest] = []
        while batch := list(itertools.islice(requests, _BATCH)):
            if signals.received:
                return signals.exit_status
            scores = _probabilities(parts, batch)
            predictions += map(functools.partial(_prediction, parts), batch, scores)
            drawn += batch[: _DRAWN - len(drawn)]
        for each in failed:
            print(f"error: {each.name} {each.error}", file=sys.stderr)
        print(_write(config, predictions, failed, drawn), flush=True)
        summary = {"predicted": len(predictions), "failed": len(failed)}
        if correct := [each["right"] for each in predictions if "right" in each]:
            summary |= {"right": sum(correct), "accuracy": sum(correct) / len(correct)}
        print(json.dumps(summary))
        return signals.exit_status or int(bool(failed))


def _of_files(
    parts: Parts, paths: list[str], failed: list[inputs.InputFile]
) -> Iterator[PredictionRequest]:
    source, config = parts.source, parts.config
    indices = np.arange(min(len(source.train), _REFERENCE))
    images = list(pipelines.read_stored_images(source, source.train, indices, cache_dir(config)))
    spec = pipelines.image_spec(source, images, config.serving.invert)
    progress = Progress(config.logging.progress, "predicting", len(paths), unit="files")
    for each in inputs.images(paths, spec):
        if each.image is None:
            failed.append(each)
        else:
            yield PredictionRequest(each.name, each.image)
        progress.advance(1)
    progress.close()


def _of_split(parts: Parts) -> Iterator[PredictionRequest]:
    config = parts.config
    source = open_source(replaced(config, test_split=config.report.split))
    split = source.test
    assert split is not None, "a split was asked for"
    progress = Progress(config.logging.progress, "predicting", len(split), unit="examples")
    for start in range(0, len(split), _BATCH):
        indices = np.arange(start, min(start + _BATCH, len(split)))
        examples = pipelines.read_examples(source, split, indices, cache_dir(config))
        for index, image, label in zip(*examples, strict=True):
            yield PredictionRequest(f"{split.name}[{index}]", image, int(label))
        progress.advance(len(indices))
    progress.close()


def _probabilities(parts: Parts, batch: list[PredictionRequest]) -> np.ndarray:
    """Returns the class probabilities of the images, float32 [n, classes]."""
    config = parts.config
    model = parts.state.scored_model(config.stopping.evaluate_ema)
    context = ForwardContext(dtype=compute_dtype(config.precision.precision))
    images = tf.constant(np.stack([each.image for each in batch]))
    outputs = model(parts.source.preprocess(images), context)
    return parts.task.predict(outputs)["probabilities"].numpy()


def _prediction(parts: Parts, request: PredictionRequest, scores: np.ndarray) -> dict[str, Any]:
    """Returns an image's entry in predictions.json: likeliest classes and, if known, the label."""
    names = parts.source.class_names
    order = np.argsort(-scores, kind="stable")[: parts.config.serving.top_k]
    top = [{"class": names[i], "probability": round(float(scores[i]), 6)} for i in order]
    prediction = {"input": request.name, **top[0], "top": top}
    if request.label >= 0:
        prediction |= {"label": names[request.label], "right": bool(request.label == order[0])}
    return prediction


def _write(
    config: Config,
    predictions: list[dict[str, Any]],
    failed: list[inputs.InputFile],
    drawn: list[PredictionRequest],
) -> str:
    """Prints the first predictions, writes all to files, and returns a line with their paths."""
    for each in predictions[:_PRINTED]:
        is_label = "" if each.get("right", True) else f", is {each['label']}"
        print(f"{each['input']}: {each['class']} {each['probability']:.1%}{is_label}")
    if len(predictions) > _PRINTED:
        print(f"... and {len(predictions) - _PRINTED:,} more")
    folder = config.serving.predictions or os.path.join(config.run.run_dir, "predictions")
    os.makedirs(folder, exist_ok=True)
    errors = [{"input": each.name, "error": each.error} for each in failed]
    text = json.dumps({"predictions": predictions, "errors": errors}, indent=1)
    replace_file(os.path.join(folder, "predictions.json"), text + "\n")
    if not predictions:
        return f"nothing could be predicted: {folder}/predictions.json says why"
    replace_file(os.path.join(folder, "predictions.csv"), _table(predictions))
    replace_file(os.path.join(folder, "predictions.png"), _picture(predictions, drawn))
    return f"predictions of {len(predictions):,} pictures: {folder}/predictions.csv, .json and .png"


def _table(predictions: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    top_k, labels = len(predictions[0]["top"]), "label" in predictions[0]
    ranks = [name for k in range(2, top_k + 1) for name in (f"class_{k}", f"probability_{k}")]
    header = ["input", "class", "probability", *ranks]
    writer.writerow([*header, "label", "right"] if labels else header)
    for each in predictions:
        row = [each["input"], *(value for rank in each["top"] for value in rank.values())]
        writer.writerow([*row, each["label"], int(each["right"])] if labels else row)
    return out.getvalue()


def _picture(predictions: list[dict[str, Any]], drawn: list[PredictionRequest]) -> bytes:
    from engine.reporting.figures import CaptionedImages, grid, join_captions

    shown = predictions[: len(drawn)]
    captions = join_captions([(each["class"], f"{each['probability']:.0%}") for each in shown])
    incorrect = [index for index, each in enumerate(shown) if not each.get("right", True)]
    images = CaptionedImages(np.stack([each.image for each in drawn]), captions, incorrect)
    return grid(images, columns=10, title="As the network sees them")
