"""TensorBoard shows a run as metrics.jsonl tells it, interrupted or not."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import HANG, Command, Interrupted, Run

Get = Callable[..., Any]


@contextlib.contextmanager
def tensorboard(command: Command, logdir: Path, log: Path) -> Iterator[Get]:
    """TensorBoard on a directory: a function that asks its HTTP API."""
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    # Port 0: one that is free. The plain loader reads everything before it answers for the first
    # time; the fast one is a second process, which would have to be waited for and ended.
    line += ["--port", "0", "--host", "127.0.0.1", "--load_fast", "false"]
    with (
        open(log, "w") as file,
        subprocess.Popen(line, env=command.environment, stdout=file, stderr=file) as process,
    ):
        try:
            address = _address(process, log)

            def get(route: str, **query: str) -> Any:
                url = f"{address}data/{route}?{urllib.parse.urlencode(query)}"
                direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with direct.open(url, timeout=HANG) as answer:
                    return json.load(answer)

            yield get
        finally:
            process.terminate()
            try:
                process.wait(10)
            finally:
                process.kill()


def await_points(get: Get, run: Run) -> None:
    """TensorBoard loads in the background: waits for as many points as there are rows."""
    end = time.monotonic() + 30
    for split in ("train", "validation", "test"):
        loaded = 0
        while loaded < len(run.rows(split)) and time.monotonic() < end:
            time.sleep(0.05)
            # Before anything is loaded: no such tag.
            with contextlib.suppress(urllib.error.HTTPError):
                loaded = len(get("plugin/scalars/scalars", run=split, tag="loss"))


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """What it says of where it serves: `http://127.0.0.1:PORT/`."""
    end = time.monotonic() + HANG
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return found[0]


@pytest.fixture(scope="module", params=["whole", "killed"])
def shown(
    request: pytest.FixtureRequest,
    command: Command,
    whole: Run,
    killed: Interrupted,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Run, Get]]:
    """A finished run, and TensorBoard on it; then one that was killed and gone on with."""
    run = whole if request.param == "whole" else killed.resumed
    log = tmp_path_factory.mktemp("tensorboard") / "log"
    with tensorboard(command, run.run_dir / "tensorboard", log) as get:
        await_points(get, run)
        yield run, get


def test_the_three_splits_are_the_runs(shown: tuple[Run, Get]):
    _, get = shown
    assert sorted(get("runs")) == ["test", "train", "validation"]


def test_the_splits_share_their_charts(shown: tuple[Run, Get]):
    """TensorBoard draws into one chart what has one tag."""
    _, get = shown
    tags = get("plugin/scalars/tags")
    for split in ("validation", "test"):
        assert set(tags[split]) == {"loss", "accuracy"}
    of_steps = {"learning_rate", "gradient_norm", "update_ratio", "skipped_steps"}
    of_clock = {"steps_per_second", "clock/goodput", "clock/restarts", "clock/lost_steps"}
    assert {"loss", "accuracy"} | of_steps | of_clock == set(tags["train"])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_point_stands_once_and_is_that_of_metrics_jsonl(shown: tuple[Run, Get], split: str):
    run, get = shown
    tags = ("loss", "accuracy", "learning_rate") if split == "train" else ("loss", "accuracy")
    rows = run.rows(split)
    assert len(rows) == {"train": 6 * 17, "validation": 6, "test": 1}[split]
    for tag in tags:
        points = get("plugin/scalars/scalars", run=split, tag=tag)
        assert [step for _, step, _ in points] == [row["step"] for row in rows]
        # The event files hold float32.
        expected = pytest.approx([row[tag] for row in rows], rel=1e-6)
        assert [value for _, _, value in points] == expected
