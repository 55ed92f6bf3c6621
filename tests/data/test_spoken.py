from __future__ import annotations

import numpy as np
import pytest

from harness.data import spoken
from harness.data._espeak import RATE, synthesise


@pytest.fixture(scope="module")
def heard() -> list:
    return list(spoken.rows("test"))


def test_sounds_are_speech_of_a_second_or_three_at_16_khz(heard):
    for row in heard:
        audio = row["audio"]
        assert audio.dtype == np.float32 and 0.7 < len(audio) / 16_000 < 3.2
        assert 0.1 < np.abs(audio).max() <= 1 and np.sqrt(np.mean(audio**2)) > 0.02


def test_longer_texts_take_longer(heard):
    seconds = [len(row["audio"]) for row in heard]
    letters = [len(row["text"]) for row in heard]
    assert np.corrcoef(seconds, letters)[0, 1] > 0.6


def test_bytes_are_the_same_each_time_and_do_not_depend_on_size():
    few = spoken.rows("train", size=100)
    again = synthesise([spoken.utterance(row["text"]) for row in few])
    assert again == spoken._speech(tuple(row["text"] for row in few))
    np.testing.assert_array_equal(few[7]["audio"], spoken.rows("train", size=120)[7]["audio"])


def test_every_word_of_a_held_out_text_is_in_training():
    words = {split: {w for row in spoken.rows(split) for w in row["text"].split()} for split in spoken.SPLITS}
    assert words["validation"] | words["test"] <= words["train"]


def test_voices_speeds_and_pitches_vary_within_their_range():
    said = [spoken.utterance(row["text"]) for row in spoken.rows("train")]
    assert {voice for _, voice, _, _ in said} == set(spoken.VOICES)
    assert {speed for _, _, speed, _ in said} <= set(range(145, 170)) and len({s[2] for s in said}) > 10
    assert {pitch for _, _, _, pitch in said} <= set(range(40, 60)) and len({s[3] for s in said}) > 10


def test_pitch_and_speed_do_what_they_say():
    slow, fast = (len(s) for s in synthesise([("turn on the light", "en-us", speed, 50) for speed in (120, 200)]))
    assert slow > 1.2 * fast
    low, high = (_pitch(s) for s in synthesise([("one two three four", "en-us", 150, pitch) for pitch in (20, 80)]))
    assert high > 1.3 * low


def _pitch(samples: bytes) -> float:
    """The strongest repetition between 60 and 350 Hz in the middle of the sound."""
    wave = np.frombuffer(samples, dtype="<i2").astype(float)
    wave = wave[len(wave) // 4 : 3 * len(wave) // 4]
    spectrum = np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2
    repeats = np.fft.irfft(spectrum)[RATE // 350 : RATE // 60]
    return RATE / (RATE // 350 + int(repeats.argmax()))


def test_failures_say_what_espeak_could_not_do():
    with pytest.raises(RuntimeError, match="no voice 'xx-none'"):
        synthesise([("hello", "xx-none", 150, 50)])
