from __future__ import annotations

import os
import signal
import threading

import pytest

from harness.tuning.interrupts import held


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C, which a process begun in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_and_is_then_raised(interruptible):
    reached = False
    with pytest.raises(KeyboardInterrupt), held() as wanted:
        assert not wanted()
        os.kill(os.getpid(), signal.SIGINT)
        reached = wanted()
    assert reached


def test_a_signal_goes_back_to_whoever_handled_it():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with held() as wanted:
            os.kill(os.getpid(), signal.SIGTERM)
            assert wanted() and not came
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_is_held_without_a_signal_or_in_another_thread():
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with held() as wanted:
        assert not wanted()
    answers = []

    def elsewhere():
        with held() as wanted:
            answers.append(wanted())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert answers == [False]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
