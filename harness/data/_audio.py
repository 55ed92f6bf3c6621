"""Sound in any format that libsndfile reads -> mono float32 at 16 kHz, what Whisper's features are made from."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.data._rows import Row
from harness.problems import Problem

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import soundfile

RATE = 16_000
"""Samples per second of every speech data set here."""


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Returns samples [n] taken at `rate` as float32 at 16 kHz, through scipy's polyphase filter."""
    import numpy as np
    from scipy.signal import resample_poly

    common = math.gcd(RATE, rate)
    if rate != RATE:
        samples = resample_poly(samples, RATE // common, rate // common)
    return np.ascontiguousarray(samples, dtype=np.float32)


def decode(data: bytes, name: str = "audio") -> np.ndarray:
    """Decodes a sound file's bytes to float32 [samples] at 16 kHz; channels are averaged.

    Raises:
        Problem: libsndfile cannot read it; `name` says which.
    """
    with _opened(data, name) as file:
        return resample(file.read(dtype="float32", always_2d=True).mean(axis=1), file.samplerate)


def seconds(data: bytes, name: str = "audio") -> float:
    """Returns a sound file's duration in seconds, from its header; a `Problem` as in `decode`."""
    with _opened(data, name) as file:
        return file.frames / file.samplerate


def _opened(data: bytes, name: str) -> soundfile.SoundFile:
    import soundfile

    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise Problem(f"cannot decode {name}: {error.error_string}") from error


def undecoded(data: datasets.Dataset) -> datasets.Dataset:
    """Leaves the column `audio` as bytes: the library's own decoder needs FFmpeg's libraries."""
    import datasets

    return data.cast_column("audio", datasets.Audio(decode=False))


def content(sound: Mapping[str, Any]) -> bytes:
    """Returns the bytes of an undecoded audio cell, which holds them or the path of a file."""
    if sound["bytes"] is not None:
        return sound["bytes"]
    with open(sound["path"], "rb") as file:
        return file.read()


def speech_row(row: Mapping[str, Any], *, text: str = "text") -> Row:
    """Makes a speech row of a hub row with undecoded audio and its transcript in the column `text`."""
    return Row(audio=partial(_samples, row["audio"]), text=row[text])


def _samples(sound: Mapping[str, Any]) -> np.ndarray:
    return decode(content(sound), sound["path"] or "audio")
