"""One tiny model of each family, made once: random but the T5, which would repeat its padding token."""

from __future__ import annotations

import re

import pytest
import torch

from harness import rooms

SAID = "der die das Haus Baum the house tree is on under seven nine plus minus old young cat dog runs sleeps"
WORDS = re.findall(r"\w+", SAID)
TEXTS = [" ".join(WORDS[(7 * i + j * j) % len(WORDS)] for j in range(4 + i % 9)) for i in range(60)]


@pytest.fixture(scope="session")
def texts():
    return TEXTS


def _train(model, tokenizer):
    batch = tokenizer(TEXTS, text_target=TEXTS[::-1], return_tensors="pt", padding=True, return_token_type_ids=False)
    labels = batch.pop("labels")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(15):
        model(**batch, labels=labels.masked_fill(labels == tokenizer.pad_token_id, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _tiny(family):
    @pytest.fixture(scope="session")
    def fixture():
        model, processor = rooms.load("model", family).tiny(TEXTS, seed=1)
        if family == "t5":
            _train(model, processor)
        return model.eval(), processor

    return fixture


t5, llama, mpt, whisper = (_tiny(family) for family in ("t5", "llama", "mpt", "whisper"))


@pytest.fixture
def quick_lm_eval(monkeypatch):
    """lm-eval describes the machine at the end of every evaluation, which takes seconds and changes no score."""
    import lm_eval.evaluator

    for name in ("add_env_info", "get_git_commit_hash"):
        monkeypatch.setattr(lm_eval.evaluator, name, lambda *_: None)
