from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from harness.data import librivox


def test_rows_hold_decoded_audio_and_its_transcript(put):
    file = io.BytesIO()
    soundfile.write(file, np.full(16_000, 0.25), 16_000, format="FLAC")
    put(
        "mirror/librivox",
        {"default": {"test": [{"audio": {"bytes": file.getvalue(), "path": "a.flac"}, "text": "Hello."}]}},
    )
    row = librivox.rows("test")[0]
    assert dict(row).keys() == {"audio", "text"} and row["text"] == "Hello."
    assert row["audio"].dtype == np.float32 and row["audio"].shape == (16_000,)


@pytest.mark.mirror
def test_real_clips(real_mirror):
    rows = librivox.rows("test")
    assert len(rows) == 38
    for row in (rows[0], rows[-1]):
        assert 0.3 < len(row["audio"]) / 16_000 < 30 and 0.01 < np.abs(row["audio"]).max() <= 1.5
        assert len(row["text"]) > 3
