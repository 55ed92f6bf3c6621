"""Short English utterances of known text, synthesised by espeak-ng: numbers, dates and simple commands, 1-3 s each.

The texts are lower-case words without punctuation; those of validation and test are said in no training row, but all
their words are. Voice, speed and pitch are drawn by a hash of the text. A split is synthesised when its first sound is
read, once a process; the text alone costs nothing. 22,050 Hz samples are resampled to 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING

from harness.data._audio import resample
from harness.data._espeak import RATE, Utterance, synthesise
from harness.data._rows import Row, Rows, check_splits, cover_first, first, share, split_of
from harness.ranges import Count
from harness.sources import Source, generated

if TYPE_CHECKING:
    import numpy as np

KIND = "speech"
SPLITS = ("train", "validation", "test")
VERSION = "1"
HELD_OUT = 60

VOICES = ("en-us", "en-us+steph", "en-us+michel", "en-gb-x-rp", "en-gb-x-rp+steph")
UNITS = "one two three four five six seven eight nine"
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
MONTHS = "january february march april may june july august september october november december"
DAYS = """
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth
    sixteenth seventeenth eighteenth nineteenth twentieth
"""
ACTIONS = ("turn on the", "turn off the", "open the", "close the", "clean the", "find the")
THINGS = "light window door fan oven radio camera heater"
ROOMS = ("in the kitchen", "in the office", "in the garage", "in the bedroom", "upstairs", "downstairs")


def source(splits: Sequence[str] = (), *, size: Count = 400) -> Source:
    """The installed espeak-ng and scipy's resampling; raises a `Problem` for an unknown split."""
    check_splits("spoken", splits, SPLITS)
    return generated("spoken", VERSION, "espeakng-loader", "scipy")


def rows(split: str, *, size: Count = 400) -> Rows:
    """Synthesised English numbers, dates and commands (generated with espeak-ng).

    Args:
        split: train, or validation or test (60 utterances each, whatever `size` is).
        size: Number of training utterances.
    """
    check_splits("spoken", [split], SPLITS)
    texts, least = texts_of(split)
    texts = tuple(first("spoken", texts, size, least) if split == "train" else texts[:HELD_OUT])
    return Rows(range(len(texts)), partial(_row, texts))


def _row(texts: tuple[str, ...], index: int) -> Row:
    return Row(audio=partial(_samples, texts, index), text=texts[index])


def _samples(texts: tuple[str, ...], index: int) -> np.ndarray:
    import numpy as np

    return resample(np.frombuffer(_speech(texts)[index], dtype="<i2").astype(np.float32) / 2**15, RATE)


@cache
def _speech(texts: tuple[str, ...]) -> list[bytes]:
    return synthesise([utterance(text) for text in texts])


def utterance(text: str) -> Utterance:
    """Draws how a text is said: its voice, 145-169 words a minute, pitch 40-59."""
    draw = [share(f"{what} {text}") for what in ("voice", "speed", "pitch")]
    return text, VOICES[int(draw[0] * len(VOICES))], 145 + int(25 * draw[1]), 40 + int(20 * draw[2])


@cache
def texts_of(split: str) -> tuple[list[str], int]:
    """Returns all texts of a split in an order fixed by hash, and how many of them hold every word there is."""
    units, tens = UNITS.split(), TENS.split()
    numbers = units + TEENS.split() + tens + [f"{ten} {unit}" for ten, unit in product(tens, units)]
    texts = [f"{unit} hundred and {number}" for unit, number in product(units, numbers)]
    texts += [f"the {day} of {month}" for day, month in product(DAYS.split(), MONTHS.split())]
    texts += [f"{action} {thing} {room}" for action, thing, room in product(ACTIONS, THINGS.split(), ROOMS)]
    here = [text for text in sorted(texts, key=share) if split_of(f"split {text}") == split]
    return cover_first(here, lambda text: set(text.split()))
