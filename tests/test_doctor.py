"""What `harness doctor` says of a machine and of the entries."""

from __future__ import annotations

from pathlib import Path

from harness import doctor

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def test_it_examines_packages_machine_and_places(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path / "nowhere"))
    found = {finding.what: finding for finding in doctor.examine(tmp_path / "results")}
    assert found["torch"].ok and found["torch"].detail[0].isdigit()
    assert found["espeak-ng"].ok and "s of audio" in found["espeak-ng"].detail
    assert found["HARNESS_MIRROR"].ok is False and "is not a folder" in found["HARNESS_MIRROR"].detail
    assert not (tmp_path / "results").exists()


def test_it_says_which_scale_of_an_entry_lacks_what(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    found = {finding.what: finding for finding in doctor.entries(["squarehead/whisper"], EXPERIMENTS)}
    assert found["squarehead/whisper --scale tiny"].ok
    small = found["squarehead/whisper --scale small"]
    assert small.ok is False and "openai/whisper-tiny.en" in small.detail and "mirror/asterisk-en" in small.detail
