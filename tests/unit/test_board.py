"""The curves: a resumed run's are those of a run that was never interrupted."""

import itertools
import json
import math
import os

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.core.util import event_pb2

from engine.keeping.board import SPLITS, Board, Row


def values(split, step):
    """What a run gives there: a pure function, as the run is."""
    count = {"train": 1000, "validation": 100, "test": 200}[split]
    return {"loss": 1.0 / (step + 1), "accuracy": step / 64, "examples": count}


def write(run_dir, *points):
    """A process that writes points (split, step) and ends."""
    board = Board(str(run_dir))
    for split, step in points:
        board.write(split, [Row(step, step // 10 + 1, values(split, step))])
    board.close()


def rewound(run_dir, step, validation=None):
    board = Board(str(run_dir))
    board.rewind(step, step if validation is None else validation)
    return board


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def standing(run_dir):
    return [(row["split"], row["step"]) for row in rows(run_dir)]


def event_files(run_dir, split):
    directory = run_dir / "tensorboard" / split
    return sorted(directory.iterdir()) if directory.is_dir() else []


def events(run_dir, split):
    """Every event of a split, in the order of the files."""
    return [
        event_pb2.Event.FromString(record)
        for path in event_files(run_dir, split)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def points(run_dir, split):
    """(step, tag, value) of every point of a split."""
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


def test_a_write_is_one_row_and_one_point_on_each_chart(tmp_path):
    write(tmp_path, ("train", 10), ("validation", 10))
    assert rows(tmp_path) == [
        {"step": 10, "epoch": 2, "split": split, **values(split, 10)}
        for split in ("train", "validation")
    ]
    for split in ("train", "validation"):
        assert points(tmp_path, split) == wanted_points(split, 10)


def test_tensorboard_reads_the_same_tags_in_each_split(tmp_path):
    write(tmp_path, *RUN, ("test", 25))
    for split in SPLITS:
        read = EventAccumulator(str(tmp_path / "tensorboard" / split))
        read.Reload()
        assert sorted(read.Tags()["tensors"]) == ["accuracy", "loss"]


def test_what_is_written_is_there_before_the_board_is_closed(tmp_path):
    board = Board(str(tmp_path))
    board.write("train", [Row(10, 1, values("train", 10))])
    assert standing(tmp_path) == [("train", 10)]
    assert points(tmp_path, "train") == wanted_points("train", 10)
    board.close()


def test_nan_and_infinity_are_null_in_the_row(tmp_path):
    board = Board(str(tmp_path))
    board.write("train", [Row(1, 1, {"loss": math.nan, "learning_rate": math.inf})])
    board.close()
    assert rows(tmp_path) == [
        {"step": 1, "epoch": 1, "split": "train", "loss": None, "learning_rate": None}
    ]


def test_rewinding_drops_later_steps_and_all_of_test(tmp_path):
    write(tmp_path, *RUN, ("test", 10), ("test", 25))
    before = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    rewound(tmp_path, 20)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(before[:4])
    assert points(tmp_path, "train") == wanted_points("train", 10, 20)
    assert points(tmp_path, "validation") == wanted_points("validation", 10, 20)
    assert points(tmp_path, "test") == []


def test_rewinding_to_the_last_step_changes_no_byte(tmp_path):
    write(tmp_path, *RUN)
    before = contents(tmp_path)
    rewound(tmp_path, 25)
    assert contents(tmp_path) == before


def test_rewinding_before_the_beginning_leaves_no_row_and_no_point(tmp_path):
    write(tmp_path, ("train", 0), *RUN, ("test", 25))
    rewound(tmp_path, -1)
    assert rows(tmp_path) == []
    assert [point for split in SPLITS for point in points(tmp_path, split)] == []


def test_rewinding_a_directory_with_nothing_in_it_is_no_error(tmp_path):
    rewound(tmp_path, 5)
    assert os.listdir(tmp_path) == []


def test_rewinding_after_writing_is_a_mistake(tmp_path):
    board = Board(str(tmp_path))
    board.write("train", [Row(1, 1, values("train", 1))])
    with pytest.raises(AssertionError, match="rewind before writing"):
        board.rewind(0, 0)
    board.close()


def test_a_run_killed_anywhere_has_the_rows_of_one_never_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for directory in (whole, killed):
        directory.mkdir()
    plan = [*RUN, ("train", 30), ("validation", 30), ("test", 30)]
    write(whole, *plan)
    write(killed, *plan[:3])
    # Each kill is behind a checkpoint of step `saved`; the run goes on from there.
    for saved, until in ((10, 5), (20, 6), (20, 8), (25, 7), (25, 8), (30, 8)):
        board = rewound(killed, saved)
        for split, step in plan[:until]:
            if step > saved or split == "test":
                board.write(split, [Row(step, step // 10 + 1, values(split, step))])
        board.close()
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for split in SPLITS:
        assert points(killed, split) == points(whole, split)
    assert len(set(standing(killed))) == len(standing(killed)) == len(plan)


def test_a_row_cut_short_anywhere_spoils_neither_its_neighbours_nor_the_next(tmp_path):
    write(tmp_path, ("train", 10), ("train", 20))
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    last = len(whole.splitlines(keepends=True)[1])
    for cut in (0, 1, 2, 3, last // 2, last - 1):
        (tmp_path / "metrics.jsonl").write_bytes(whole[: len(whole) - cut])
        board = rewound(tmp_path, 20)
        board.write("train", [Row(30, 4, values("train", 30))])
        board.close()
        kept = [10, 20] if cut <= 1 else [10]  # without its line break a row is still whole
        assert [row["step"] for row in rows(tmp_path)] == [*kept, 30], f"{cut} bytes lost"


def test_rows_that_are_none_are_dropped(tmp_path):
    write(tmp_path, ("train", 10))
    good = (tmp_path / "metrics.jsonl").read_text()
    bad = ["\0\0\0\n", "3\n", "null\n", "\n", "{}\n", '{"step": null, "split": "train"}\n']
    (tmp_path / "metrics.jsonl").write_text("".join(bad) + good)
    rewound(tmp_path, 10)
    assert (tmp_path / "metrics.jsonl").read_text() == good


def test_an_event_cut_short_anywhere_leaves_all_before_it_and_nothing_of_itself(tmp_path):
    write(tmp_path, ("train", 10), ("train", 20))
    (path,) = event_files(tmp_path, "train")
    whole, ends = path.read_bytes(), [0]
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        ends.append(ends[-1] + 8 + 4 + len(record) + 4)  # length, its checksum, record, checksum
    for end, following in itertools.pairwise(ends):
        # Within the length, behind it, behind its checksum, in the record, before the last byte.
        for cut in (end, end + 5, end + 8, end + 12, end + 20, following - 4, following - 1):
            path.write_bytes(whole[:cut])
            rewound(tmp_path, 20)
            assert path.read_bytes() == whole[:end], f"cut at {cut} of {ends}"
    write(tmp_path, ("train", 30))
    assert points(tmp_path, "train")[-2:] == wanted_points("train", 30)


def test_a_kill_while_rewinding_is_repaired_by_the_next_rewinding(tmp_path):
    write(tmp_path, *RUN)
    (path,) = event_files(tmp_path, "train")
    path.with_name(path.name + ".part").write_bytes(b"half")
    (tmp_path / "metrics.jsonl.part").write_text("half")
    rewound(tmp_path, 20)
    assert event_files(tmp_path, "train") == [path]
    assert points(tmp_path, "train") == wanted_points("train", 10, 20)
    assert standing(tmp_path) == RUN[:4]


def test_what_others_put_beside_the_curves_is_left_alone(tmp_path):
    write(tmp_path, *RUN)
    directory = tmp_path / "tensorboard" / "train"
    (directory / "notes.txt").write_text("a note longer than the head of a record")
    (directory / "plugins").mkdir()
    rewound(tmp_path, 20)
    assert (directory / "notes.txt").read_text() == "a note longer than the head of a record"
    assert (directory / "plugins").is_dir()
