"""Following instructions: an instruction in a template, then the response; training, calibration, greedy responses.

    alpaca    "### Instruction:", the instruction, "### Response:"     Alpaca's headings without its preamble
    article   "Article:", the article, "### Summarization:"            Sparse Llama's prompt for CNN/DailyMail
    plain     the instruction and a line break

With `scored=answer` the response and the end token are scored, with `scored=all` the prompt too, as LoRS and LoSA do.
An instruction that is too long loses its end, so that headings and response stay whole. Responses are generated
greedily; the authors of Sparse Llama sampled summaries from the two likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from harness.data._rows import Rows
from harness.models import IGNORED
from harness.ranges import Count
from harness.tasks._batches import Predictions, in_batches, labelled
from harness.tasks._generate import completions

READS = "instruction"
METRIC = "rouge"
collate = labelled
TEMPLATES = {
    "alpaca": "### Instruction:\n{}\n\n### Response:\n",
    "article": "Article:\n{}\n\n### Summarization:\n",
    "plain": "{}\n",
}


def _prompt(text: str, processor: Any, template: str, room: int) -> list[int]:
    """Returns the tokens of a prompt, at most `room` of them, the instruction cut at its end to fit."""
    ids = processor(TEMPLATES[template].format(text), verbose=False).input_ids
    if len(ids) > room:
        kept = processor(text, add_special_tokens=False, verbose=False).input_ids
        shorter = processor.decode(kept[: max(len(kept) - (len(ids) - room), 0)])
        ids = processor(TEMPLATES[template].format(shorter)).input_ids[:room]
    return ids


def examples(
    rows: Sequence[Mapping[str, str]],
    processor: Any,
    *,
    template: Literal["alpaca", "article", "plain"] = "alpaca",
    scored: Literal["answer", "all"] = "answer",
    length: Count = 512,
) -> Sequence[dict[str, list[int]]]:
    """Prompt and response tokens of each instruction, what is scored as labels.

    Args:
        rows: Rows with `instruction` and `response`.
        processor: The tokenizer.
        template: How an instruction is written; see above.
        scored: What is learned: the response, or the prompt too.
        length: Most tokens of prompt and response together; a response that alone is longer is cut at its end.

    Returns:
        `input_ids` and `labels` each, of equal length.
    """

    def make(row: Mapping[str, str]) -> dict[str, list[int]]:
        answer = processor(row["response"], add_special_tokens=False, verbose=False).input_ids
        answer = [*answer, processor.eos_token_id][: max(length - 1, 1)]
        prompt = _prompt(row["instruction"], processor, template, length - len(answer))
        labels = prompt if scored == "all" else [IGNORED] * len(prompt)
        return {"input_ids": prompt + answer, "labels": labels + answer}

    return Rows(rows, make)


def texts(row: Mapping[str, str]) -> list[str]:
    """Returns instruction and response."""
    return [row["instruction"], row["response"]]


def predict(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, str]],
    start: int,
    batch_size: int,
    *,
    template: Literal["alpaca", "article", "plain"] = "alpaca",
    length: Count = 512,
    max_new_tokens: Count = 100,
) -> Predictions:
    """Responses to instructions, generated greedily.

    Args:
        model: A decoder-only model.
        processor: The tokenizer.
        rows: Rows with `instruction` and `response`.
        start: Rows done before.
        batch_size: Instructions a batch.
        template: How an instruction is written; see above.
        length: Most tokens of a prompt.
        max_new_tokens: Most tokens of a response.

    Returns:
        Rows with `prediction` and `reference`.

    Raises:
        Problem: A prompt and its response do not fit into the model's context.
    """

    def respond(batch: list[Mapping[str, str]]) -> list[dict[str, Any]]:
        prompts = [_prompt(row["instruction"], processor, template, length) for row in batch]
        said = completions(model, processor, prompts, max_new_tokens)
        return [{"prediction": text, "reference": row["response"]} for row, text in zip(batch, said, strict=True)]

    return in_batches(rows, start, batch_size, respond)
