"""Reasoning in words, in GSM8K's form (Cobbe et al., arXiv:2110.14168): a question, a worked answer, "#### number".

    raw:     question answer<end>                       no template and no separator, as in the SquareHead authors' code
    lm_eval: Question: question\\nAnswer: answer<end>   lm-eval's prompt

Only the answer and the end token are scored. A sequence longer than `length` keeps its last tokens, so that the final
number is never lost (the same source). Generation is greedy, with padding on the left; under lm_eval's template it ends
where the model begins another "Question:".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Literal

from harness.data._rows import Rows
from harness.metrics.exact_match import flexible, strict
from harness.models import IGNORED
from harness.problems import Problem
from harness.ranges import Count, Whole
from harness.tasks._batches import Predictions, in_batches, labelled
from harness.tasks._generate import completions

READS = "reasoning"
METRIC = "exact_match"
collate = labelled


def _prompt(question: str, template: str) -> str:
    return f"Question: {question}\nAnswer:" if template == "lm_eval" else question


def _target(answer: str, template: str) -> str:
    return f" {answer}" if template == "lm_eval" else answer


def examples(
    rows: Sequence[Mapping[str, str]],
    processor: Any,
    *,
    template: Literal["raw", "lm_eval"] = "raw",
    length: Count = 512,
) -> Sequence[dict[str, list[int]]]:
    """Question and answer tokens of each problem, the answer's as labels.

    Args:
        rows: Rows with `question` and `answer`.
        processor: The tokenizer.
        template: How question and answer are written.
        length: Tokens of which the last are kept.

    Returns:
        `input_ids` and `labels` each, of equal length.
    """

    def make(row: Mapping[str, str]) -> dict[str, list[int]]:
        prompt = processor(_prompt(row["question"], template)).input_ids
        answer = processor(_target(row["answer"], template), add_special_tokens=False).input_ids
        answer.append(processor.eos_token_id)
        labels = [IGNORED] * len(prompt) + answer
        return {"input_ids": (prompt + answer)[-length:], "labels": labels[-length:]}

    return Rows(rows, make)


def texts(row: Mapping[str, str]) -> list[str]:
    """Returns question and answer."""
    return [row["question"], row["answer"]]


def predict(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, str]],
    start: int,
    batch_size: int,
    shown: Sequence[Mapping[str, str]],
    *,
    template: Literal["raw", "lm_eval"] = "raw",
    shots: Whole = 0,
    max_new_tokens: Count = 256,
) -> Predictions:
    """Answers to word problems, generated greedily.

    Args:
        model: A decoder-only model.
        processor: The tokenizer.
        rows: Rows with `question` and `answer`.
        start: Rows done before.
        batch_size: Questions a batch.
        shown: The training rows to show before each question, `shots` of them.
        template: How question and answer are written.
        shots: Solved problems before each question, the first of the training split, separated by blank lines.
        max_new_tokens: Most tokens of an answer.

    Returns:
        Rows with `prediction`, `reference`, and the numbers found in the prediction: `strict` and `flexible`.

    Raises:
        Problem: A prompt and its answer do not fit into the model's context, or there are too few rows to show.
    """
    if len(shown) < shots:
        raise Problem(f"there are {len(shown)} training rows, fewer than the {shots} shots")
    solved = (_prompt(row["question"], template) + _target(row["answer"], template) for row in islice(shown, shots))
    before = "".join(text + "\n\n" for text in solved)

    def answer(batch: list[Mapping[str, str]]) -> list[dict[str, Any]]:
        prompts = [processor(before + _prompt(row["question"], template)).input_ids for row in batch]
        said = completions(model, processor, prompts, max_new_tokens)
        if template == "lm_eval":
            said = [text.partition("Question:")[0] for text in said]
        return [
            {"prediction": text, "reference": row["answer"], "strict": strict(text), "flexible": flexible(text)}
            for row, text in zip(batch, said, strict=True)
        ]

    return in_batches(rows, start, batch_size, answer)
