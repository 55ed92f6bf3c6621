from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from harness.data import common_voice
from harness.problems import Problem


def clip(duration: float, sentence: str) -> dict:
    file = io.BytesIO()
    soundfile.write(file, np.full(int(48_000 * duration), 0.25), 48_000, format="WAV")
    return {"audio": {"bytes": file.getvalue(), "path": f"{sentence}.wav"}, "sentence": sentence}


def test_clips_of_0_s_and_of_30_s_are_left_out(put):
    clips = [clip(0.0, "empty"), clip(1.0, "नमस्ते"), clip(30.0, "long"), clip(29.5, "almost")]
    put("mozilla-foundation/common_voice_11_0", {"hi": {"train": clips, "validation": [clip(0.5, "short")]}})
    rows = common_voice.rows("train+validation")
    assert [row["text"] for row in rows] == ["नमस्ते", "almost", "short"]
    audio = rows[0]["audio"]
    assert audio.dtype == np.float32 and audio.shape == (16_000,)
    assert audio[8000] == pytest.approx(0.25, abs=0.001)


def test_other_language_is_a_problem(put):
    put("mozilla-foundation/common_voice_11_0", {"hi": {"test": [clip(1.0, "a")]}})
    with pytest.raises(Problem, match="'de'"):
        common_voice.source(["test"], language="de")
