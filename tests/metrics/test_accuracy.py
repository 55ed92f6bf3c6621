"""Accuracy: every task counts once, and the errors are lm-eval's."""

from __future__ import annotations

import pytest

from harness.metrics import accuracy
from harness.problems import Problem


def rows(task, hits, norms=None):
    found = [{"task": task, "protocol": f"lm-eval {task} v1", "acc": float(hit)} for hit in hits]
    for row, norm in zip(found, norms or [], strict=False):
        row["acc_norm"] = float(norm)
    return found


BOTH = rows("easy", [1, 1, 1, 0], [1, 1, 1, 1]) + rows("hard", [0, 1], [0, 0])


def test_worked_by_hand():
    found = accuracy.score(BOTH)
    assert list(found) == ["accuracy", "easy/acc", "easy/acc_norm", "hard/acc", "hard/acc_norm"]
    assert found["accuracy"].value == pytest.approx((75 + 50) / 2) and found["accuracy"].count == 6
    easy, hard = 100 * (0.75 * 0.25 / 3) ** 0.5, 100 * (0.5 * 0.5 / 1) ** 0.5
    assert found["easy/acc"].stderr == pytest.approx(easy) and found["hard/acc"].stderr == pytest.approx(hard)
    assert found["accuracy"].stderr == pytest.approx((easy**2 + hard**2) ** 0.5 / 2)


def test_the_error_of_a_task_is_lm_evals():
    from lm_eval.api.metrics import mean_stderr

    hits = [1, 0, 0, 1, 1, 1, 0, 1, 1]
    assert accuracy.score(rows("a", hits))["a/acc"].stderr == pytest.approx(100 * mean_stderr(hits))


def test_the_measure_is_an_option():
    found = accuracy.score(BOTH, measure="acc_norm")
    assert found["accuracy"].value == pytest.approx((100 + 0) / 2)
    assert found["accuracy"].protocol == "mean acc_norm of lm-eval easy v1; lm-eval hard v1"


def test_a_task_without_the_measure_is_named():
    with pytest.raises(Problem, match="plain reports no acc_norm"):
        accuracy.score([*BOTH, *rows("plain", [1, 0])], measure="acc_norm")


def test_one_document_has_no_error():
    assert accuracy.score(rows("a", [1]))["accuracy"].stderr is None


def test_pictures_are_one_task_without_a_normalised_accuracy():
    found = accuracy.score(rows("classification", [1, 1, 0, 1]))
    assert list(found) == ["accuracy", "classification/acc"]
    assert found["accuracy"].value == found["classification/acc"].value == 75
    assert found["accuracy"].stderr == pytest.approx(100 * (0.75 * 0.25 / 3) ** 0.5)
