"""Tests that TensorBoard shows the metrics of metrics.jsonl, for interrupted runs as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.command import Command, Interrupted, Run
from tests.tensorboard import TensorBoard, tensorboard


@pytest.fixture(scope="module", params=["whole", "killed"])
def shown(
    request: pytest.FixtureRequest,
    command: Command,
    whole: Run,
    killed: Interrupted,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Run, TensorBoard]]:
    """Yields a run and a client of a TensorBoard of this run.

    The parameters are an uninterrupted run, and a run that was killed and resumed.
    """
    run = whole if request.param == "whole" else killed.resumed
    log = tmp_path_factory.mktemp("tensorboard") / "log"
    with tensorboard(command, run.run_dir / "tensorboard", log) as board:
        board.await_points(run)
        yield run, board


def test_splits_are_runs(shown: tuple[Run, TensorBoard]):
    _, board = shown
    assert sorted(board.get("runs")) == ["test", "train", "validation"]


def test_splits_share_tags(shown: tuple[Run, TensorBoard]):
    """All splits have the same tags, so that TensorBoard draws their curves in one chart."""
    _, board = shown
    tags = board.get("plugin/scalars/tags")
    for split in ("validation", "test"):
        assert set(tags[split]) == {"loss", "accuracy"}
    step_charts = {"learning_rate", "gradient_norm", "skipped_steps"}
    of_clock = {"steps_per_second", "clock/examples_per_second", "clock/goodput"}
    of_clock |= {"clock/restarts", "clock/lost_steps", "clock/input_wait"}
    assert {"loss", "accuracy"} | step_charts | of_clock == set(tags["train"])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_points_match_metrics_jsonl(shown: tuple[Run, TensorBoard], split: str):
    """TensorBoard shows each row of metrics.jsonl as one point with its values."""
    run, board = shown
    tags = ("loss", "accuracy", "learning_rate") if split == "train" else ("loss", "accuracy")
    rows = run.rows(split)
    assert len(rows) == {"train": 6 * 17, "validation": 6, "test": 1}[split]
    for tag in tags:
        points = board.get("plugin/scalars/scalars", run=split, tag=tag)
        assert [step for _, step, _ in points] == [row["step"] for row in rows]
        # Event files store float32.
        expected = pytest.approx([row[tag] for row in rows], rel=1e-6)
        assert [value for _, _, value in points] == expected
