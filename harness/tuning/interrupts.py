"""Ctrl-C and SIGTERM wait for the end of a training step, so that a checkpoint can be written first.

In the middle of an update the weights belong to no step. While `held` is open both signals are only noted; when it
closes, the noted one is raised again for whoever handled it before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Holds SIGINT and SIGTERM back; yields the question whether one has come.

    Outside the main thread, where Python delivers no signals, nothing is held and the answer is always no.
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
