"""Formats predictions as entries of predictions.json, lines to print, a CSV table and a PNG."""

from __future__ import annotations

import csv
import io
from typing import Any, NamedTuple

import numpy as np

from engine.assembly.trained import TrainedModel

_FEW = 64  # maximum number of values of a prediction that are written as text


class PredictionRequest(NamedTuple):
    """The inputs of an example to predict, with the name and the label for display."""

    name: str  # path of the file, or "SPLIT[INDEX]"
    inputs: Any  # nest of arrays: the decoded inputs of one example
    label: str = ""  # name of its class; "": unknown


def entry(
    trained: TrainedModel, request: PredictionRequest, predicted: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Returns an example's entry in predictions.json, a dict for `json.dumps`.

    "input" is the name of the example. If the data set has class names and the predictions include
    "classes" and "probabilities", the entry also has "class" and "probability" of the most probable
    class, "top" (a list of these two for each of the `--top_k` most probable classes) and, if the
    label is known, "label" and "right" (whether "class" is the label). Otherwise, the entry also
    has each prediction of at most 64 values, by name, as a number or as nested lists.

    Args:
      trained: network that made the prediction.
      request: the example.
      predicted: predictions of the example by name, [...] each.
    """
    names = trained.source.class_names
    if not (names and {"probabilities", "classes"} <= predicted.keys()):
        few = {name: each for name, each in predicted.items() if each.size <= _FEW}
        return {"input": request.name, **{name: each.tolist() for name, each in few.items()}}
    scores = predicted["probabilities"]
    order = np.argsort(-scores, kind="stable")[: trained.config.serving.top_k]
    top = [{"class": names[i], "probability": round(float(scores[i]), 6)} for i in order]
    prediction = {"input": request.name, **top[0], "top": top}
    if request.label:
        prediction |= {"label": request.label, "right": request.label == top[0]["class"]}
    return prediction


def summary_line(prediction: dict[str, Any]) -> str:
    """Formats an entry of predictions.json as a line to print."""
    if "class" in prediction:
        is_label = "" if prediction.get("right", True) else f", is {prediction['label']}"
        likely = f"{prediction['class']} {prediction['probability']:.1%}"
        return f"{prediction['input']}: {likely}{is_label}"
    values = [f"{name} {value}" for name, value in prediction.items() if name != "input"]
    return f"{prediction['input']}: {', '.join(values) or 'in predictions.npz'}"


def csv_table(predictions: list[dict[str, Any]]) -> str:
    """Returns 1 or more entries of predictions.json as the text of a CSV file, with a row each.

    All entries must have the same keys, except "label" and "right". These two columns are written
    if an entry has the keys, and are empty in the rows of entries without them.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if "class" not in predictions[0]:
        _write_values(writer, predictions)
        return out.getvalue()
    top_k, labels = len(predictions[0]["top"]), any("label" in each for each in predictions)
    ranks = [name for k in range(2, top_k + 1) for name in (f"class_{k}", f"probability_{k}")]
    header = ["input", "class", "probability", *ranks]
    writer.writerow([*header, "label", "right"] if labels else header)
    for each in predictions:
        row = [each["input"], *(value for rank in each["top"] for value in rank.values())]
        told = [each["label"], int(each["right"])] if "label" in each else ["", ""]
        writer.writerow([*row, *told] if labels else row)
    return out.getvalue()


def _write_values(writer: Any, predictions: list[dict[str, Any]]) -> None:
    """Writes the header and a row for each entry of a task without classes.

    A prediction of one value has a column of its name; a prediction of several values has a column
    for each value, such as "name_0" and "name_1".
    """
    header = ["input"]
    for name, value in predictions[0].items():
        if name != "input":
            size = np.size(value)
            header += [name] if size == 1 else [f"{name}_{index}" for index in range(size)]
    writer.writerow(header)
    for each in predictions:
        flat = [np.ravel(value).tolist() for name, value in each.items() if name != "input"]
        writer.writerow([each["input"], *(value for values in flat for value in values)])


def picture(predictions: list[dict[str, Any]], drawn: list[PredictionRequest]) -> bytes:
    """Draws the first images with their predictions as captions; returns the PNG as bytes.

    Images whose predicted class is not the label are marked.

    Args:
      predictions: entries of predictions.json, beginning with those of `drawn`.
      drawn: 1 or more examples to draw, with images [H, W, C] as inputs.
    """
    from engine.reporting.figures import CaptionedImages, grid, join_captions

    images = np.stack([each.inputs for each in drawn])
    shown = predictions[: len(drawn)]
    if "class" not in shown[0]:
        captions = [_caption(each) for each in shown]
        return grid(CaptionedImages(images, captions, []), columns=10, title="Predictions")
    texts = [(each["class"], f"{each['probability']:.0%}") for each in shown]
    incorrect = [index for index, each in enumerate(shown) if not each.get("right", True)]
    captioned = CaptionedImages(images, join_captions(texts), incorrect)
    return grid(captioned, columns=10, title="As the network sees them")


def _caption(prediction: dict[str, Any]) -> str:
    values = [np.ravel(value) for name, value in prediction.items() if name != "input"]
    flat = np.concatenate(values) if values else np.zeros(0)
    return " ".join(f"{value:.3g}" for value in flat[:3].astype(np.float64))
