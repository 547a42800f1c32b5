"""AsyncWorker jobs run in order, at most one waits, and errors are raised."""

from __future__ import annotations

import threading
import time

import pytest

from engine.runtime.async_worker import AsyncWorker


@pytest.fixture
def background():
    background = AsyncWorker()
    yield background
    background.close()


class Gate:
    """A job that runs until `open` is set."""

    def __init__(self, background: AsyncWorker) -> None:
        self.open, begun = threading.Event(), threading.Event()

        def job():
            begun.set()
            assert self.open.wait(10)

        background.put(job, replaceable=True)
        assert begun.wait(10)


def test_jobs_run_in_order(background):
    done = []
    for number in range(20):
        background.put(lambda number=number: done.append(number), replaceable=False)
    background.finish()
    assert done == list(range(20))


def test_newer_job_replaces_waiting(background):
    """`put` returns at once, and a new job replaces a queued one that is replaceable."""
    done, gate = [], Gate(background)
    for number in range(5):
        background.put(lambda number=number: done.append(number), replaceable=True)
    assert done == []
    gate.open.set()
    background.finish()
    assert done == [4]


def test_put_waits_for_required_job(background):
    """`put` blocks while a job that is not replaceable is queued."""
    done, gate = [], Gate(background)
    background.put(lambda: done.append("best"), replaceable=False)
    waiting = threading.Thread(
        target=background.put, args=(lambda: done.append("next"),), kwargs={"replaceable": True}
    )
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    gate.open.set()
    waiting.join(10)
    background.finish()
    assert done == ["best", "next"]


def test_job_error_raised_once(background):
    def fails():
        raise OSError("no space")

    background.put(fails, replaceable=False)
    with pytest.raises(OSError, match="no space"):
        background.finish()
    background.check()
    done = []
    background.put(lambda: done.append(1), replaceable=False)  # jobs still run after an error
    background.finish()
    assert done == [1]


def test_close_finishes_jobs():
    before, background, done = threading.active_count(), AsyncWorker(), []
    gate = Gate(background)
    background.put(lambda: done.append(1), replaceable=True)
    threading.Timer(0.05, gate.open.set).start()
    background.close()
    assert done == [1]
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    background.close()
