"""Signals: the first one requests a graceful stop; the second one ends the process."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.runtime.signals import Signals

REPOSITORY = Path(__file__).resolve().parents[2]
ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def handlers():
    return [signal.getsignal(number) for number in ALL]


@pytest.fixture(autouse=True)
def untouched():
    """Restores the signal handlers after each test."""
    before = handlers()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    yield
    for number, handler in zip(ALL, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_first_signal_is_noted(number):
    with Signals() as signals:
        assert (signals.received, signals.exit_status) == (0, 0)
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert signals.exit_status == STATUS[number]


@pytest.mark.parametrize("number", ALL)
def test_second_signal_has_default_handler(number):
    with Signals():
        assert signal.SIG_DFL not in handlers()
        os.kill(os.getpid(), number)
        assert set(handlers()) == {signal.SIG_DFL}


@pytest.mark.parametrize("number", [None, *ALL])
def test_restores_handlers(number):
    before = handlers()
    with Signals():
        if number:
            os.kill(os.getpid(), number)
    assert handlers() == before


def test_restores_handlers_after_error():
    before = handlers()
    with pytest.raises(RuntimeError, match="inside"), Signals():
        raise RuntimeError("inside")
    assert handlers() == before


def test_restores_own_handler():
    def own(number, frame):
        pass

    signal.signal(signal.SIGTERM, own)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not own
    assert signal.getsignal(signal.SIGTERM) is own


def test_other_thread():
    before, seen = handlers(), []

    def work():
        with Signals() as signals:
            seen.append((handlers(), signals.exit_status))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, 0)]


@pytest.mark.parametrize("second", ALL)
def test_second_signal_ends_process(second):
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from engine.runtime.signals import Signals\n"
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


def test_signal_during_agreement():
    def nobody_has_one(received: int) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return received

    with Signals() as signals:
        assert signals.agree(nobody_has_one) == 0
        assert signals.agree(lambda received: received) == signal.SIGTERM
        assert signals.exit_status == 143


def test_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
