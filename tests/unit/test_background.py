"""Jobs are done in their order, one waits at most, and what fails is told."""

from __future__ import annotations

import threading
import time

import pytest

from engine.keeping.background import Background


@pytest.fixture
def background():
    background = Background()
    yield background
    background.close()


class Gate:
    """A job that is under way until it is let go."""

    def __init__(self, background: Background) -> None:
        self.open, begun = threading.Event(), threading.Event()

        def job():
            begun.set()
            assert self.open.wait(10)

        background.put(job, gives_way=True)
        assert begun.wait(10)


def test_jobs_are_done_in_the_order_in_which_they_came(background):
    done = []
    for number in range(20):
        background.put(lambda number=number: done.append(number), gives_way=False)
    background.finish()
    assert done == list(range(20))


def test_the_caller_does_not_wait_and_a_later_job_takes_the_place_of_one_that_gives_way(background):
    done, gate = [], Gate(background)
    for number in range(5):
        background.put(lambda number=number: done.append(number), gives_way=True)
    assert done == []
    gate.open.set()
    background.finish()
    assert done == [4]


def test_a_job_that_gives_no_way_is_waited_for(background):
    done, gate = [], Gate(background)
    background.put(lambda: done.append("best"), gives_way=False)
    waiting = threading.Thread(
        target=background.put, args=(lambda: done.append("next"),), kwargs={"gives_way": True}
    )
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    gate.open.set()
    waiting.join(10)
    background.finish()
    assert done == ["best", "next"]


def test_what_a_job_raises_is_raised_once_where_it_is_asked_for(background):
    def fails():
        raise OSError("no space")

    background.put(fails, gives_way=False)
    with pytest.raises(OSError, match="no space"):
        background.finish()
    background.check()
    done = []
    background.put(lambda: done.append(1), gives_way=False)  # it goes on after that
    background.finish()
    assert done == [1]


def test_closing_waits_for_all_and_leaves_no_thread():
    before, background, done = threading.active_count(), Background(), []
    gate = Gate(background)
    background.put(lambda: done.append(1), gives_way=True)
    threading.Timer(0.05, gate.open.set).start()
    background.close()
    assert done == [1]
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    background.close()
