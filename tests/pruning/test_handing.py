from __future__ import annotations

import pytest

from harness.pruning.handing import handing


def collect(generator):
    """What a generator yields, and what it returns."""
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as end:
            return seen, end.value


def test_what_is_handed_out_is_yielded_and_the_result_returned():
    def count(hand):
        for number in (1, 2, 3):
            hand(number)
        return "done"

    assert collect(handing(count)) == ([1, 2, 3], "done")
    assert collect(handing(lambda hand: None)) == ([], None)


def test_an_error_comes_through():
    def fail(hand):
        hand(1)
        raise ValueError("wrong")

    generator = handing(fail)
    assert next(generator) == 1
    with pytest.raises(ValueError, match="wrong"):
        next(generator)


def test_closing_early_unwinds_the_function():
    unwound = []

    def endless(hand):
        try:
            while True:
                hand(0)
        finally:
            unwound.append(True)

    generator = handing(endless)
    next(generator)
    generator.close()
    assert unwound == [True]


def test_it_nests():
    def outer(hand):
        for number in handing(lambda inner: [inner(1), inner(2)]):
            hand(number * 10)

    assert collect(handing(outer))[0] == [10, 20]
