"""The first signal asks for a polite stop; the second one ends the process."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.keeping.signals import Signals

REPOSITORY = Path(__file__).resolve().parents[2]
ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def handlers():
    return [signal.getsignal(number) for number in ALL]


@pytest.fixture(autouse=True)
def untouched():
    """Whatever a test does, the next one starts with the handlers it would have had."""
    before = handlers()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    yield
    for number, handler in zip(ALL, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_noted_and_work_goes_on(number):
    with Signals() as signals:
        assert (signals.received, signals.exit_status) == (0, 0)
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert signals.exit_status == STATUS[number]


@pytest.mark.parametrize("number", ALL)
def test_after_the_first_signal_any_second_one_is_the_systems_own(number):
    with Signals():
        assert signal.SIG_DFL not in handlers()
        os.kill(os.getpid(), number)
        assert set(handlers()) == {signal.SIG_DFL}


@pytest.mark.parametrize("number", [None, *ALL])
def test_the_handlers_of_before_are_back_afterwards(number):
    before = handlers()
    with Signals():
        if number:
            os.kill(os.getpid(), number)
    assert handlers() == before


def test_the_handlers_of_before_are_back_after_an_error():
    before = handlers()
    with pytest.raises(RuntimeError, match="inside"), Signals():
        raise RuntimeError("inside")
    assert handlers() == before


def test_a_handler_of_the_callers_own_is_put_back():
    def own(number, frame):
        pass

    signal.signal(signal.SIGTERM, own)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not own
    assert signal.getsignal(signal.SIGTERM) is own


def test_in_another_thread_signals_are_left_alone():
    before, seen = handlers(), []

    def work():
        with Signals() as signals:
            seen.append((handlers(), signals.exit_status))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, 0)]


@pytest.mark.parametrize("second", ALL)
def test_a_second_signal_ends_the_process_at_once(second):
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from engine.keeping.signals import Signals\n"
        "with Signals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('polite', flush=True)\n"
        f"    os.kill(os.getpid(), {int(second)})\n"
        "    print('still here', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("polite\n", -second)


def test_a_signal_that_comes_while_the_workers_agree_is_not_lost():
    def nobody_has_one(received: int) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return received

    with Signals() as signals:
        assert signals.agree(nobody_has_one) == 0
        assert signals.agree(lambda received: received) == signal.SIGTERM
        assert signals.exit_status == 143


def test_a_signal_that_the_process_ignores_is_ignored_further():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
