"""A function that reports on its way, as a generator: what it hands out is yielded, what it returns is the result.

An allocation that searches is a plain function, which calls its judge as often as it likes; the stage that waits for it
is a generator, which must say how far it is. The function runs in a greenlet; handing out switches to the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from greenlet import getcurrent, greenlet

Handed = TypeVar("Handed")
Result = TypeVar("Result")


def handing(function: Callable[[Callable[[Handed], None]], Result]) -> Generator[Handed, None, Result]:
    """Yields everything that `function(hand)` gives to `hand`, and returns what it returns.

    A generator that is closed early ends the function where it is waiting.
    """
    result: list[Result] = []

    def hand(handed: Handed) -> None:
        runner.parent.switch(handed)

    runner = greenlet(lambda: result.append(function(hand)))
    try:
        while True:
            runner.parent = getcurrent()
            handed = runner.switch()
            if runner.dead:
                return result[0]
            yield handed
    finally:
        if not runner.dead:
            runner.parent = getcurrent()
            runner.throw()
