from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from harness.data._audio import RATE, content, decode, resample, seconds
from harness.problems import Problem


def tone(rate: int, hertz: float, duration: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * duration)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampled_tone_is_the_tone_at_16_khz(rate):
    found, expected = resample(tone(rate, 440), rate), tone(RATE, 440)
    assert found.dtype == np.float32 and abs(len(found) - len(expected)) <= 1
    inner = slice(800, 7200)  # the filter rings at the ends
    assert np.abs(found[inner] - expected[inner]).max() < 0.01


def test_resampling_removes_what_16_khz_cannot_hold():
    assert np.abs(resample(tone(44_100, 12_000), 44_100)[800:7200]).max() < 0.01


def test_decode_averages_channels_and_keeps_16_khz_exactly():
    left, right = tone(RATE, 440), tone(RATE, 880)
    data = wav(np.stack([left, right], axis=1), RATE)
    np.testing.assert_allclose(decode(data), (left + right) / 2, atol=1e-7)
    assert seconds(data) == 0.5


def test_damaged_sound_is_named():
    with pytest.raises(Problem, match=r"cannot decode clip\.mp3"):
        decode(b"no sound", "clip.mp3")


def test_content_reads_a_path_where_there_are_no_bytes(tmp_path):
    (tmp_path / "clip.wav").write_bytes(b"sound")
    assert content({"bytes": None, "path": str(tmp_path / "clip.wav")}) == b"sound"
    assert content({"bytes": b"other", "path": "gone.wav"}) == b"other"
