"""The metrics need no hub, no network and no writable home."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import socket
def refuse(*_): raise OSError("the network was asked")
socket.socket.connect = refuse
from harness.metrics import accuracy, bleu, exact_match, perplexity, wer
text = {"prediction": "a b c d #### 7", "reference": "a b c d #### 7"}
assert bleu.score([text])["bleu"].value > 99
assert wer.score([{**text, "normaliser": "n", "normalised": text}])["wer"].value == 0
assert exact_match.score([text])["exact_match"].value == 100
assert perplexity.score([{"protocol": "p", "nll": 0.0, "tokens": 1}])["perplexity"].value == 1
assert accuracy.score([{"task": "t", "protocol": "p", "acc": 1.0}])["accuracy"].value == 100
"""


def test_offline_with_a_home_that_cannot_be_written():
    nowhere = os.devnull + "/home"
    home = {"HOME": nowhere, "HF_HOME": nowhere, "XDG_CACHE_HOME": nowhere}
    environment = {**os.environ, **home, "HF_HUB_OFFLINE": "1", "HF_METRICS_CACHE": nowhere}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    import tempfile

    import evaluate.config

    from harness.metrics import bleu

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bleu.score([{"prediction": "a", "reference": "a"}])
    assert list(tmp_path.iterdir()) == []
