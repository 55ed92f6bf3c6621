"""LibriVox readings: 38 English clips, 4 minutes at 16 kHz, a stand-in for LibriSpeech's test sets.

Test only. In the mirror only; it has no twin on the hub.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.data._audio import speech_row, undecoded
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "speech"
SPLITS = ("test",)
NAME = "mirror/librivox"


def source(splits: Sequence[str] = ()) -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits)


def rows(split: str) -> Rows:
    """LibriVox readings in English, 38 clips (mirror only, test only).

    Args:
        split: test.
    """
    return Rows(undecoded(read(source([split]), split)), speech_row)
