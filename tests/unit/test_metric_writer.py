"""Logged metrics: a resumed run has the same rows and events as an uninterrupted one."""

import itertools
import json
import math
import os

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.core.util import event_pb2

from engine.logging.metric_writer import MetricRow, MetricWriter

SPLITS = ("train", "validation", "test")


def values(split, step):
    """Returns the metrics of a split at a step, as a pure function."""
    count = {"train": 1000, "validation": 100, "test": 200}[split]
    return {"loss": 1.0 / (step + 1), "accuracy": step / 64, "examples": count}


def write(run_dir, *points):
    """Writes a row for each (split, step) in `points`, by a `MetricWriter` that it then closes."""
    metric_writer = MetricWriter(str(run_dir))
    for split, step in points:
        metric_writer.write(split, [MetricRow(step, step // 10 + 1, values(split, step))])
    metric_writer.close()


def rewound(run_dir, step, validation=None):
    metric_writer = MetricWriter(str(run_dir))
    metric_writer.rewind(step, step if validation is None else validation)
    return metric_writer


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def standing(run_dir):
    return [(row["split"], row["step"]) for row in rows(run_dir)]


def event_files(run_dir, split):
    directory = run_dir / "tensorboard" / split
    return sorted(directory.iterdir()) if directory.is_dir() else []


def events(run_dir, split):
    """Returns all events of a split, in the order of its event files."""
    return [
        event_pb2.Event.FromString(record)
        for path in event_files(run_dir, split)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def points(run_dir, split):
    """Returns (step, tag, value) of every summary of a split."""
    return [
        (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
        for event in events(run_dir, split)
        for value in event.summary.value
    ]


def wanted_points(split, *steps):
    names = ("loss", "accuracy")
    return [(s, n, float(tf.constant(values(split, s)[n]))) for s in steps for n in names]


def contents(run_dir):
    return {str(p): p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}


RUN = [("train", 10), ("validation", 10), ("train", 20), ("validation", 20), ("train", 25)]


def test_write_adds_row_and_event(tmp_path):
    write(tmp_path, ("train", 10), ("validation", 10))
    assert rows(tmp_path) == [
        {"step": 10, "epoch": 2, "split": split, **values(split, 10)}
        for split in ("train", "validation")
    ]
    for split in ("train", "validation"):
        assert points(tmp_path, split) == wanted_points(split, 10)


def test_tensorboard_reads_tags(tmp_path):
    write(tmp_path, *RUN, ("test", 25))
    for split in SPLITS:
        read = EventAccumulator(str(tmp_path / "tensorboard" / split))
        read.Reload()
        assert sorted(read.Tags()["tensors"]) == ["accuracy", "loss"]


def test_written_before_close(tmp_path):
    metric_writer = MetricWriter(str(tmp_path))
    metric_writer.write("train", [MetricRow(10, 1, values("train", 10))])
    assert standing(tmp_path) == [("train", 10)]
    assert points(tmp_path, "train") == wanted_points("train", 10)
    metric_writer.close()


def test_nonfinite_is_null(tmp_path):
    metric_writer = MetricWriter(str(tmp_path))
    metric_writer.write("train", [MetricRow(1, 1, {"loss": math.nan, "learning_rate": math.inf})])
    metric_writer.close()
    assert rows(tmp_path) == [
        {"step": 1, "epoch": 1, "split": "train", "loss": None, "learning_rate": None}
    ]


def test_named_validation_sets(tmp_path):
    """All sets are rewound to the last evaluation; those that the run no longer has are emptied."""
    metric_writer = MetricWriter(str(tmp_path), validation_sets=("a", "b", "gone"))
    for step in (10, 20):
        for split in ("train", "a", "b", "gone"):
            metric_writer.write(split, [MetricRow(step, 1, {"loss": float(step)})])
    metric_writer.close()
    metric_writer = MetricWriter(str(tmp_path), validation_sets=("a", "b"))
    metric_writer.rewind(20, 10)
    kept = [("train", 10), ("a", 10), ("b", 10), ("train", 20)]
    assert standing(tmp_path) == kept
    assert [(s, p[0]) for s in ("a", "b", "gone") for p in points(tmp_path, s)] == [
        ("a", 10),
        ("b", 10),
    ]


def test_rewind_drops_later_steps(tmp_path):
    """Rewinding drops the rows and events of later steps, and all of the test split."""
    write(tmp_path, *RUN, ("test", 10), ("test", 25))
    before = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    rewound(tmp_path, 20)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(before[:4])
    assert points(tmp_path, "train") == wanted_points("train", 10, 20)
    assert points(tmp_path, "validation") == wanted_points("validation", 10, 20)
    assert points(tmp_path, "test") == []


def test_rewind_fails(tmp_path, monkeypatch):
    """An error of TensorFlow, such as that of a full disk, is one line."""

    class Full:
        def __init__(self, path: str) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    write(tmp_path, *RUN)
    monkeypatch.setattr(tf.io, "TFRecordWriter", Full)
    with pytest.raises(OSError, match=r"^cannot write curves to .*: No space left on device"):
        rewound(tmp_path, 20)


def test_rewind_to_last_step(tmp_path):
    write(tmp_path, *RUN)
    before = contents(tmp_path)
    rewound(tmp_path, 25)
    assert contents(tmp_path) == before


def test_rewind_before_first_step(tmp_path):
    write(tmp_path, ("train", 0), *RUN, ("test", 25))
    rewound(tmp_path, -1)
    assert rows(tmp_path) == []
    assert [point for split in SPLITS for point in points(tmp_path, split)] == []


def test_rewind_empty_directory(tmp_path):
    rewound(tmp_path, 5)
    assert os.listdir(tmp_path) == []


def test_rewind_after_write(tmp_path):
    metric_writer = MetricWriter(str(tmp_path))
    metric_writer.write("train", [MetricRow(1, 1, values("train", 1))])
    with pytest.raises(AssertionError, match="rewind before writing"):
        metric_writer.rewind(0, 0)
    metric_writer.close()


def test_killed_run_has_same_rows(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for directory in (whole, killed):
        directory.mkdir()
    plan = [*RUN, ("train", 30), ("validation", 30), ("test", 30)]
    write(whole, *plan)
    write(killed, *plan[:3])
    # Each kill is after a checkpoint of step `saved`, from which the run resumes.
    for saved, until in ((10, 5), (20, 6), (20, 8), (25, 7), (25, 8), (30, 8)):
        metric_writer = rewound(killed, saved)
        for split, step in plan[:until]:
            if step > saved or split == "test":
                metric_writer.write(split, [MetricRow(step, step // 10 + 1, values(split, step))])
        metric_writer.close()
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for split in SPLITS:
        assert points(killed, split) == points(whole, split)
    assert len(set(standing(killed))) == len(standing(killed)) == len(plan)


def test_truncated_row(tmp_path):
    """A truncated row affects neither its neighbours nor the next row."""
    write(tmp_path, ("train", 10), ("train", 20))
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    last = len(whole.splitlines(keepends=True)[1])
    for cut in (0, 1, 2, 3, last // 2, last - 1):
        (tmp_path / "metrics.jsonl").write_bytes(whole[: len(whole) - cut])
        metric_writer = rewound(tmp_path, 20)
        metric_writer.write("train", [MetricRow(30, 4, values("train", 30))])
        metric_writer.close()
        kept = [10, 20] if cut <= 1 else [10]  # without its line break a row is still whole
        assert [row["step"] for row in rows(tmp_path)] == [*kept, 30], f"{cut} bytes lost"


def test_drops_invalid_rows(tmp_path):
    write(tmp_path, ("train", 10))
    good = (tmp_path / "metrics.jsonl").read_text()
    bad = ["\0\0\0\n", "3\n", "null\n", "\n", "{}\n", '{"step": null, "split": "train"}\n']
    (tmp_path / "metrics.jsonl").write_text("".join(bad) + good)
    rewound(tmp_path, 10)
    assert (tmp_path / "metrics.jsonl").read_text() == good


def test_truncated_event(tmp_path):
    """A truncated event is dropped completely, and all events before it are kept."""
    write(tmp_path, ("train", 10), ("train", 20))
    (path,) = event_files(tmp_path, "train")
    whole, ends = path.read_bytes(), [0]
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        ends.append(ends[-1] + 8 + 4 + len(record) + 4)  # length, its checksum, record, checksum
    for end, following in itertools.pairwise(ends):
        # Within the length, after it, after its checksum, in the record, before the last byte.
        for cut in (end, end + 5, end + 8, end + 12, end + 20, following - 4, following - 1):
            path.write_bytes(whole[:cut])
            rewound(tmp_path, 20)
            assert path.read_bytes() == whole[:end], f"cut at {cut} of {ends}"
    write(tmp_path, ("train", 30))
    assert points(tmp_path, "train")[-2:] == wanted_points("train", 30)


def test_rewind_after_killed_rewind(tmp_path):
    write(tmp_path, *RUN)
    (path,) = event_files(tmp_path, "train")
    path.with_name(path.name + ".part").write_bytes(b"half")
    (tmp_path / "metrics.jsonl.part").write_text("half")
    rewound(tmp_path, 20)
    assert event_files(tmp_path, "train") == [path]
    assert points(tmp_path, "train") == wanted_points("train", 10, 20)
    assert standing(tmp_path) == RUN[:4]


def test_keeps_foreign_files(tmp_path):
    write(tmp_path, *RUN)
    directory = tmp_path / "tensorboard" / "train"
    (directory / "notes.txt").write_text("a note longer than the head of a record")
    (directory / "plugins").mkdir()
    rewound(tmp_path, 20)
    assert (directory / "notes.txt").read_text() == "a note longer than the head of a record"
    assert (directory / "plugins").is_dir()


def test_event_files_sort_by_creation(tmp_path, monkeypatch):
    """Files of the same second are in order, also if the number of the process is smaller."""
    steps = {99999: 1, 100000: 2, 7: 3}  # by the number of the process
    for number, step in steps.items():
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        write(tmp_path, ("train", step))
    assert [event.step for event in events(tmp_path, "train") if event.step] == [1, 2, 3]
