"""Language modelling: windows of text to train and calibrate on, and perplexity under named protocols.

    ppl-<window>-concat: documents joined by blank lines, encoded once, cut into windows that do not overlap, the tail
        dropped; each window scores its tokens but the first. The protocol of SparseGPT, Wanda and their followers,
        over WikiText-2's test lines.
    word-ppl: each document alone, every token scored, in windows of at most `window` tokens after a token of context
        (the last window reaches back for more); divided by the whitespace words of the text. lm-eval's rolling
        log-likelihood.
    word-ppl-wikitext: word-ppl after lm-eval's clean-up of WikiText's spacing, words and bytes counted before it: its
        task `wikitext` is this over EleutherAI/wikitext_document_level.

Training windows are made like the first protocol's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.models import IGNORED
from harness.problems import Problem
from harness.tasks._batches import Predictions, in_batches, inputs

READS = "text"
METRIC = "perplexity"


def _windows(rows: Sequence[Mapping[str, str]], processor: Any, length: int) -> list[list[int]]:
    """Returns the token windows of the joined documents.

    Raises:
        Problem: The text is shorter than one window.
    """
    text = "\n\n".join(row["text"] for row in rows)
    ids = processor(text, verbose=False).input_ids
    if len(ids) < length:
        raise Problem(
            f"the text has {len(ids)} tokens, fewer than one window of {length}", hint="take a smaller window"
        )
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]


def examples(rows: Sequence[Mapping[str, str]], processor: Any, *, length: int = 512) -> Sequence[dict[str, list[int]]]:
    """Windows of the joined documents.

    Args:
        rows: Rows with `text`.
        processor: The tokenizer.
        length: Tokens a window.

    Returns:
        `input_ids` each.
    """
    return [{"input_ids": ids} for ids in _windows(rows, processor, length)]


def collate(features: Sequence[Mapping[str, list[int]]], processor: Any) -> dict[str, Tensor]:
    """Returns `input_ids`, `attention_mask` and `labels`, each [batch, window]; every token is scored."""
    batch = inputs([f["input_ids"] for f in features], processor)
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)}


def texts(row: Mapping[str, str]) -> list[str]:
    """Returns the document."""
    return [row["text"]]


def predict(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, str]],
    start: int,
    batch_size: int,
    *,
    protocol: Literal["ppl-concat", "word-ppl", "word-ppl-wikitext"] = "ppl-concat",
    window: int = 2048,
) -> Predictions:
    """Negative log-likelihoods of text: per window of the joined documents, or per document.

    Args:
        model: A decoder-only model.
        processor: The tokenizer.
        rows: Rows with `text`: lines or documents.
        start: Windows or documents done before.
        batch_size: Windows a batch.
        protocol: ppl-concat, word-ppl or word-ppl-wikitext; see above.
        window: Tokens the model sees at once.

    Returns:
        Rows with `protocol`, `nll` (nats) and `tokens`; per document also `words` and `bytes`.

    Raises:
        Problem: The window is longer than the model's context, or the text shorter than the window.
    """
    _fits(model, window)
    if protocol == "ppl-concat":
        name = f"ppl-{window}-concat"

        def per_window(batch: list[list[int]]) -> list[dict[str, Any]]:
            losses = _nll(model, processor, [(ids[:-1], ids[1:]) for ids in batch])
            return [{"protocol": name, "nll": nll, "tokens": window - 1} for nll in losses]

        return in_batches(_windows(rows, processor, window), start, batch_size, per_window)

    def per_document(batch: list[Mapping[str, str]]) -> list[dict[str, Any]]:
        (text,) = (row["text"] for row in batch)
        if protocol == "word-ppl-wikitext" and "\n" not in text.strip():
            raise Problem(f"word-ppl-wikitext reads whole articles, and a row is the line {text[:40]!r}")
        parts = list(_rolling(_tidy(text) if protocol == "word-ppl-wikitext" else text, processor, window))
        cuts = (parts[at : at + batch_size] for at in range(0, len(parts), batch_size))
        nll = sum(value for cut in cuts for value in _nll(model, processor, cut))
        counts = {"words": len(re.split(r"\s+", text)), "bytes": len(text.encode())}
        tokens = sum(len(scored) for _, scored in parts)
        return [{"protocol": f"{protocol}-{window}", "nll": nll, "tokens": tokens, **counts}]

    return in_batches(rows, start, 1, per_document)


def _fits(model: Any, window: int) -> None:
    names = ("max_position_embeddings", "max_seq_len", "n_positions")
    context = next((getattr(model.config, name) for name in names if hasattr(model.config, name)), None)
    if context is not None and window > context:
        raise Problem(f"a window of {window} tokens is longer than the model's context of {context}")


def _tidy(text: str) -> str:
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    return wikitext_detokenizer({"page": text})


def _rolling(text: str, processor: Any, window: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yields (tokens the model reads, tokens it must predict), the last prediction being of the last position read.

    The first window begins after the beginning-of-text token, or the end token where a tokenizer has none.
    """
    begin = processor.eos_token_id if processor.bos_token_id is None else processor.bos_token_id
    special = not text.startswith(processor.decode([begin]))
    ids = processor(text, add_special_tokens=special, verbose=False).input_ids
    for at in range(0, len(ids), window):
        end = min(at + window, len(ids))
        context = ids[max(end - window - 1, 0) : at] if at else [begin]
        yield context + ids[at : end - 1], ids[at:end]


@torch.no_grad()
def _nll(model: Any, processor: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """Returns, for each (read, predict) pair, the negative log-likelihood of the tokens to predict, summed in float64.

    Log-probabilities are taken in float32 whatever the model's dtype.
    """
    batch = {name: tensor.to(model.device) for name, tensor in inputs([r for r, _ in pairs], processor).items()}
    logits = model(**batch, use_cache=False).logits
    sums = []
    for row, (read, scored) in zip(logits, pairs, strict=True):
        target = torch.tensor(scored, device=row.device)
        losses = cross_entropy(row[len(read) - len(scored) : len(read)].float(), target, reduction="none")
        sums.append(losses.double().sum().item())
    return sums
