"""Common Voice 11.0: read sentences of volunteers; SquareHead fine-tunes Whisper on its Hindi (train+validation).

Clips of 0 s and of 30 s or more are left out, as the authors do: Whisper sees 30 s. On the hub the data set is gated
and is a loading script, which `datasets` no longer runs; a Parquet copy in a mirror, or the hub's own conversion
(revision=refs/convert/parquet, where there is one), can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from harness.data._audio import content, seconds, speech_row, undecoded
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "speech"
SPLITS = ("train", "validation", "test", "other", "invalidated")
NAME = "mozilla-foundation/common_voice_11_0"
LONGEST = 30.0


def source(splits: Sequence[str] = (), *, language: str = "hi", revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split or the language cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, config=language, revision=revision)


def rows(split: str, *, language: str = "hi", revision: str = "main") -> Rows:
    """Common Voice 11.0 read speech (mozilla-foundation/common_voice_11_0; Hindi unless told), clips under 30 s.

    Args:
        split: train, validation, test, other or invalidated; `a+b` for both.
        language: The hub's configuration: a language code.
        revision: The hub's branch or commit.
    """
    data = undecoded(read(source([split], language=language, revision=revision), split, config=language))
    fits = [i for i, sound in enumerate(data.select_columns("audio")) if _fits(sound["audio"])]
    return Rows(data.select(fits), partial(speech_row, text="sentence"))


def _fits(sound: Mapping[str, Any]) -> bool:
    return 0 < seconds(content(sound), sound["path"]) < LONGEST
