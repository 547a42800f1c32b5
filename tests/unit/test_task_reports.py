"""Reports of runs of each task, as HTML and in TensorBoard."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.assembly.parts import assemble
from engine.config import flags
from engine.models.registry import NETWORKS
from engine.reporting import report, tensorboard_report
from pipelines.preprocessing import preprocessing
from tapeline import models
from tests.nested import source_of

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 255, (40, 8, 8, 1)).astype(np.uint8)
MASKS = (IMAGES[..., 0] // 86).astype(np.int32)
MASKS[:, 0] = 9  # ignored

# Options, targets, figures of the section, and the name of its CSV.
TASKS = {
    "regression": (
        ["--metrics=r2"],
        RANDOM.random((40, 3)).astype(np.float32),
        {"predictions_over_targets", "largest_losses"},
        "validation_predictions.csv",
    ),
    "multi_label": (
        ["--metrics=f1,auc"],
        RANDOM.integers(0, 2, (40, 3)).astype(np.int32),
        {"label_scores", "largest_losses"},
        "validation_predictions.csv",
    ),
    "segmentation": (
        ["--model=pixels", "--ignore_label=9"],
        MASKS,
        {"masks", "worst_masks"},
        "validation_losses.csv",
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_report(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options, targets, figures, table = TASKS[task]
    monkeypatch.setattr(NETWORKS, "_entries", dict(NETWORKS._entries))
    NETWORKS.register("pixels")(
        lambda outputs: [models.Convolution(outputs.shape[-1], padding="SAME")]
    )
    source = source_of(IMAGES, targets, held_out=12)
    source = dataclasses.replace(
        source,
        preprocess=preprocessing("auto", source.decoded[0]),
        class_names=("a", "b", "c") if task == "segmentation" else (),
    )
    given = [f"--task={task}", f"--run_dir={tmp_path}", f"--cache_dir={tmp_path / 'cache'}"]
    config = flags.parse([*given, "--model=mlp", "--hidden=8", "--global_batch_size=8", *options])
    with contextlib.closing(assemble(config, source=source)) as parts:
        built = report.build_run_report(parts, None, "initial weights", None, lambda: False)
        assert built is not None
        report.write(str(tmp_path), built)
        tensorboard_report.show(parts, built.pictures)
        means = parts.evaluations["validation"].run(lambda: False)
        split, content = report.build_split_report(parts, "validation", "", lambda: False)
    assert {path.stem for path in (tmp_path / "plots").glob("*.png")} == figures
    assert len((tmp_path / table).read_text().splitlines()) == 1 + 12
    (events,) = (tmp_path / "tensorboard").glob("events*")
    records = tf.data.TFRecordDataset(str(events))
    parsed = [tf.compat.v1.Event.FromString(each.numpy()) for each in records]
    assert figures <= {value.tag for event in parsed for value in event.summary.value}
    # The section and the metrics agree.
    values = content.values
    if task == "regression":
        assert values["errors"]["all"]["r2"] == pytest.approx(means["r2"], rel=1e-4)
    elif task == "multi_label":
        for name, key in (("f1", "f1"), ("auc", "auc")):
            each = [label[key] for label in values["by_label"].values()]
            assert means[name] == pytest.approx(np.nan_to_num(each).mean(), abs=1e-3)
    else:
        each = [label["iou"] for label in values["by_class"].values()]
        assert means["mean_iou"] == pytest.approx(np.nanmean(each), abs=1e-6)
    assert split.tables.keys() == {table} and content.text
