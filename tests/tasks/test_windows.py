from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.tasks._windows import Windows


@given(ids=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=40), length=st.integers(1, 12))
def test_windows_are_slices_without_the_tail(ids, length):
    if len(ids) < length:
        with pytest.raises(Problem, match=f"the text has {len(ids)} tokens, fewer than one window of {length}"):
            Windows(numpy.array(ids, numpy.uint16), length)
        return
    windows = Windows(numpy.array(ids, numpy.uint16), length)
    expected = [{"input_ids": ids[at : at + length]} for at in range(0, len(ids) - length + 1, length)]
    assert list(windows) == expected and len(windows) == len(expected)
    assert windows[-1] == expected[-1] and windows.length == length
    for outside in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            windows[outside]


def test_an_item_holds_plain_integers():
    assert type(Windows(numpy.arange(4, dtype=numpy.uint16), 2)[1]["input_ids"][0]) is int
