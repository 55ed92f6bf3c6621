"""Asterisk's telephone prompts: one English speaker, 21 minutes at 16 kHz, a stand-in for a fine-tuning set.

366 / 45 / 116 short clips from the G.722 core sounds (CC BY-SA 3.0). In the mirror only; it has no twin on the hub.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.data._audio import speech_row, undecoded
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "speech"
SPLITS = ("train", "validation", "test")
NAME = "mirror/asterisk-en"


def source(splits: Sequence[str] = ()) -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits)


def rows(split: str) -> Rows:
    """Asterisk telephone prompts, one English speaker (mirror only).

    Args:
        split: train, validation or test; `a+b` for both.
    """
    return Rows(undecoded(read(source([split]), split)), speech_row)
