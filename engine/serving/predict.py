"""`--mode=predict`: predicts the classes of image files or of a split."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import pipelines
from engine.assembly.data import cache_dir, open_source
from engine.assembly.trained import RestoredRun, restored
from engine.config.schema import Config, replaced
from engine.logging.progress import Progress
from engine.models.base import ForwardContext
from engine.optim.precision import compute_dtype
from engine.runtime.atomic_files import replace_file
from engine.runtime.signals import Signals
from engine.serving import inputs
from engine.tasks.classification import probabilities

_PORTION = 256  # images per batch
_PRINTED = 50  # maximum number of predictions that are printed
_DRAWN = 100  # maximum number of images in predictions.png
_GROUND = 256  # maximum number of training images that define the background and ink layout


class PredictionRequest(NamedTuple):
    """An image to predict.

    Attributes:
      name: name for display.
      image: image [H, W, C] at the network's input size.
      label: class index of the image; -1: unknown.
    """

    name: str
    image: np.ndarray
    label: int = -1


def run(config: Config) -> int:
    """Predicts classes, prints them, writes predictions.csv, predictions.json and predictions.png.

    Args:
      config: options of the run.

    Returns:
      The exit status: 128 + the number of a received signal; else 1 if a file cannot be read (the
      others are predicted); else 0.

    Raises:
      ValueError: if not exactly one of --inputs and --split is given, an input does not exist, or
        the run has no weights that --weights selects.
      OSError: if the checkpoint is damaged or a file cannot be written.
    """
    if bool(config.serving.inputs) == bool(config.report.split):
        raise ValueError("give --inputs=FILES or --split=SPLIT to predict, one of them")
    paths = inputs.files(config.serving.inputs) if config.serving.inputs else []
    with Signals() as signals, restored(config) as found:
        parts = found.parts
        print(f"predicting by {found.words}, {found.path}, on {parts.device}", flush=True)
        failed: list[inputs.InputFile] = []
        asked = _of_files(found, paths, failed) if paths else _of_split(found)
        done: list[dict[str, Any]] = []
        drawn: list[PredictionRequest] = []
        for some in _portions(asked):
            if signals.received:
                return signals.exit_status
            scores = _scored(found, some)
            done += [_told(found, each, p) for each, p in zip(some, scores, strict=True)]
            drawn += some[: _DRAWN - len(drawn)]
        for each in failed:
            print(f"error: {each.name} {each.error}", file=sys.stderr)
        print(_write(config, done, failed, drawn), flush=True)
        print(json.dumps({"predicted": len(done), "failed": len(failed)} | _score(done)))
        return signals.exit_status or int(bool(failed))


def _of_files(
    found: RestoredRun, paths: list[str], failed: list[inputs.InputFile]
) -> Iterator[PredictionRequest]:
    source, config = found.parts.source, found.parts.config
    some = np.arange(min(len(source.train), _GROUND))
    images = list(pipelines.read_stored_images(source, source.train, some, cache_dir(config)))
    want = pipelines.wanted(source, images, config.serving.invert)
    progress = Progress(config.logging.progress, "predicting", len(paths), unit="files")
    for each in inputs.images(paths, want):
        if each.image is None:
            failed.append(each)
        else:
            yield PredictionRequest(each.name, each.image)
        progress.advance(1)
    progress.close()


def _of_split(found: RestoredRun) -> Iterator[PredictionRequest]:
    config = found.parts.config
    source = open_source(replaced(config, test_split=config.report.split))
    assert source.test is not None, "a split was asked for"
    progress = Progress(config.logging.progress, "predicting", len(source.test), unit="examples")
    for first in range(0, len(source.test), _PORTION):
        numbers = np.arange(first, min(first + _PORTION, len(source.test)))
        examples = pipelines.read_examples(source, source.test, numbers, cache_dir(config))
        for number, image, label in zip(*examples, strict=True):
            yield PredictionRequest(f"{source.test.name}[{number}]", image, int(label))
        progress.advance(len(numbers))
    progress.close()


def _portions(asked: Iterator[PredictionRequest]) -> Iterator[list[PredictionRequest]]:
    while some := list(itertools.islice(asked, _PORTION)):
        yield some


def _scored(found: RestoredRun, some: Sequence[PredictionRequest]) -> np.ndarray:
    """Returns the class probabilities of the images, float32 [k, classes]."""
    config = found.parts.config
    model = found.parts.state.scored_model(config.stopping.evaluate_ema)
    context = ForwardContext(dtype=compute_dtype(config.precision.precision))
    images = tf.constant(np.stack([each.image for each in some]))
    return probabilities(model, images, context).numpy()


def _told(found: RestoredRun, asked: PredictionRequest, scores: np.ndarray) -> dict[str, Any]:
    """Returns the entry of one prediction in predictions.json."""
    names = found.parts.source.class_names
    most = min(found.parts.config.serving.top_k, len(names))
    order = np.argsort(-scores, kind="stable")[:most]
    told: dict[str, Any] = {
        "input": asked.name,
        "class": names[order[0]],
        "probability": round(float(scores[order[0]]), 6),
        "top": [
            {"class": names[each], "probability": round(float(scores[each]), 6)} for each in order
        ],
    }
    if asked.label >= 0:
        told |= {"label": names[asked.label], "right": bool(asked.label == order[0])}
    return told


def _score(done: list[dict[str, Any]]) -> dict[str, Any]:
    known = [each["right"] for each in done if "right" in each]
    return {"right": sum(known), "accuracy": sum(known) / len(known)} if known else {}


def _write(
    config: Config,
    done: list[dict[str, Any]],
    failed: list[inputs.InputFile],
    drawn: list[PredictionRequest],
) -> str:
    """Prints the first predictions, writes the files, and returns a line with their paths."""
    for each in done[:_PRINTED]:
        is_label = "" if each.get("right", True) else f", is {each['label']}"
        print(f"{each['input']}: {each['class']} {each['probability']:.1%}{is_label}")
    if len(done) > _PRINTED:
        print(f"... and {len(done) - _PRINTED:,} more")
    folder = config.serving.predictions or os.path.join(config.run.run_dir, "predictions")
    os.makedirs(folder, exist_ok=True)
    errors = [{"input": each.name, "error": each.error} for each in failed]
    text = json.dumps({"predictions": done, "errors": errors}, indent=1)
    replace_file(os.path.join(folder, "predictions.json"), text + "\n")
    if not done:
        return f"nothing could be predicted: {folder}/predictions.json says why"
    replace_file(os.path.join(folder, "predictions.csv"), _table(done))
    replace_file(os.path.join(folder, "predictions.png"), _picture(done, drawn))
    return f"predictions of {len(done):,} pictures: {folder}/predictions.csv, .json and .png"


def _table(done: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    most, known = len(done[0]["top"]), "label" in done[0]
    ranks = [name for k in range(2, most + 1) for name in (f"class_{k}", f"probability_{k}")]
    writer.writerow(
        ["input", "class", "probability", *ranks, *(["label", "right"] if known else [])]
    )
    for each in done:
        others = [value for rank in each["top"][1:] for value in rank.values()]
        row = [each["input"], each["class"], each["probability"], *others]
        writer.writerow([*row, each["label"], int(each["right"])] if known else row)
    return out.getvalue()


def _picture(done: list[dict[str, Any]], drawn: list[PredictionRequest]) -> bytes:
    from engine.reporting.figures import CaptionedImages, grid, join_captions

    parts = [(each["class"], f"{each['probability']:.0%}") for each in done[: len(drawn)]]
    wrong = [at for at, each in enumerate(done[: len(drawn)]) if not each.get("right", True)]
    images = np.stack([each.image for each in drawn])
    return grid(
        CaptionedImages(images, join_captions(parts), wrong),
        columns=10,
        title="As the network sees them",
    )
