"""Perplexity: of a uniform model it is the size of the vocabulary, whatever the windows."""

from __future__ import annotations

import math

import pytest

from harness.metrics import perplexity
from harness.problems import Problem


def window(nll, tokens, **more):
    return {"protocol": "ppl-8-concat", "nll": nll, "tokens": tokens, **more}


def test_of_a_uniform_model():
    found = perplexity.score([window(7 * math.log(50), 7), window(7 * math.log(50), 7)])
    assert list(found) == ["perplexity"]
    assert found["perplexity"].value == pytest.approx(50) and found["perplexity"].stderr == pytest.approx(0, abs=1e-9)
    assert found["perplexity"].protocol == "ppl-8-concat" and not found["perplexity"].higher_is_better


def test_equal_windows_give_the_exponential_of_the_mean_loss():
    losses = [1.0, 2.0, 4.5]
    found = perplexity.score([window(7 * loss, 7) for loss in losses])["perplexity"]
    mean = sum(losses) / 3
    error = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / (3 * 2))
    assert found.value == pytest.approx(math.exp(mean)) and found.count == 3
    assert found.stderr == pytest.approx(math.exp(mean) * error)


def test_documents_are_weighted_by_their_words():
    rows = [window(10.0, 5, words=4, bytes=20), window(2.0, 3, words=1, bytes=4)]
    found = perplexity.score(rows)
    assert list(found) == ["perplexity", "token_perplexity", "byte_perplexity", "bits_per_byte"]
    assert found["perplexity"].value == pytest.approx(math.exp(12 / 5))
    assert found["token_perplexity"].value == pytest.approx(math.exp(12 / 8))
    assert found["byte_perplexity"].value == pytest.approx(math.exp(12 / 24))
    assert found["bits_per_byte"].value == pytest.approx(12 / 24 / math.log(2))


def test_one_window_has_no_error():
    assert perplexity.score([window(3.0, 3)])["perplexity"].stderr is None


@pytest.mark.parametrize("nll", [math.nan, math.inf, 1e6])
def test_a_broken_model_is_not_a_finite_number(nll):
    assert not math.isfinite(perplexity.score([window(nll, 7)])["perplexity"].value)


def test_protocols_do_not_mix():
    with pytest.raises(Problem, match="mix the protocols ppl-4-concat, ppl-8-concat"):
        perplexity.score([window(1.0, 7), {**window(1.0, 3), "protocol": "ppl-4-concat"}])


def test_nothing_predicted():
    with pytest.raises(Problem, match="no token"):
        perplexity.score([window(0.0, 0)])
