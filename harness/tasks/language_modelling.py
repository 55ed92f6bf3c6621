"""Language modelling: windows of text to train and calibrate on, and perplexity under named protocols.

    ppl-<window>-concat: documents joined by blank lines, encoded once, cut into windows that do not overlap, the tail
        dropped; each window scores its tokens but the first. The protocol of SparseGPT, Wanda and their followers,
        over WikiText-2's test lines.
    word-ppl: each document alone, every token scored, in windows of at most `window` tokens after a token of context
        (the last window reaches back for more); divided by the whitespace words of the text. lm-eval's rolling
        log-likelihood.
    word-ppl-wikitext: word-ppl after lm-eval's clean-up of WikiText's spacing, words and bytes counted before it: its
        task `wikitext` is this over EleutherAI/wikitext_document_level.

Training windows are made like the first protocol's, for text that fits into memory some 150 bytes a character; or, for
calibration as the pruning papers do it over C4, cropped at random from long documents (`cut=crops`); or, for
pretraining, of documents tokenised one by one into a file, as many as the run's tokens need (`cut=packed`). Rows that
are `input_ids` already are examples as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy
import psutil
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.data._rows import Rows
from harness.models import IGNORED
from harness.problems import Problem
from harness.ranges import Count, Whole
from harness.tasks._batches import Predictions, in_batches, inputs
from harness.tasks._crops import Crops
from harness.tasks._lengths import positions
from harness.tasks._packed import Packed
from harness.tasks._windows import Windows

READS = "text"
METRIC = "perplexity"
JOINED = 150
"""Bytes that a character of a text tokenised at once takes meanwhile; measured: 663 a token of WikiText-2."""


def _windows(rows: Iterable[Mapping[str, str]], processor: Any, length: int) -> Windows:
    """Returns the token windows of the joined documents.

    Raises:
        Problem: The text is shorter than one window, or too long to be tokenised at once on this machine.
    """
    memory, size, texts = psutil.virtual_memory().total, 0, []
    for row in rows:
        texts.append(_text(row))
        size += len(texts[-1])
        if size * JOINED > memory:
            said = f"more than {memory / 2**30:.1f} GiB, all of this machine's memory, to tokenise at once"
            hint = "take fewer rows; or train with cut=packed, which tokenises documents one by one into a file"
            raise Problem(f"the first {len(texts):,} of these documents joined need {said}", hint=hint)
    return Windows(numpy.array(processor("\n\n".join(texts), verbose=False).input_ids, numpy.uint32), length)


def examples(
    rows: Sequence[Mapping[str, Any]],
    processor: Any,
    *,
    length: Count = 512,
    cut: Literal["joined", "crops", "packed"] = "joined",
    seed: Whole = 0,
) -> Sequence[dict[str, list[int]]]:
    """Windows of the documents; rows of `input_ids` are taken as they are.

    Args:
        rows: Rows with `text`, or all with `input_ids`, which `length`, `cut` and `seed` leave alone.
        processor: The tokenizer.
        length: Tokens a window.
        cut: joined: the documents are joined and cut into windows. crops: a random window out of each document that is
            longer, the draw of SparseGPT and Wanda. packed: each document is tokenised by itself, and windows are cut
            from one after another; a run of so many tokens or steps reads no more documents than it needs.
        seed: With `cut=crops`, draws where a document's window begins.

    Returns:
        `input_ids` each.

    Raises:
        Problem: The text is shorter than one window or too long for `cut=joined`, the tokenizer cannot pack, or token
            ids are not the tokenizer's.
    """
    if "input_ids" in next(iter(rows), {}):
        if cut != "joined":
            raise Problem("these rows are input_ids, which are used as they are", hint=f"leave cut={cut} out")
        return Rows(range(len(rows)), lambda index: _exact(index, rows[index]["input_ids"], processor))
    if cut == "crops":
        return Crops(rows, processor, length, seed)
    if cut == "packed":
        return Packed(rows, processor, length)
    return _windows(rows, processor, length)


def _exact(index: int, ids: list[int], processor: Any) -> dict[str, list[int]]:
    """Returns a row of token ids as an example after checking that it is one of this tokenizer."""
    if max(ids) >= len(processor):
        raise Problem(f"token {max(ids)} is none of the tokenizer's {len(processor)}", where=f"row {index}")
    if len(ids) > processor.model_max_length:
        text = f"it has {len(ids)} tokens; the model reads up to {processor.model_max_length}"
        raise Problem(text, where=f"row {index}", hint="input_ids are never cut: make them shorter")
    return {"input_ids": ids}


def collate(features: Sequence[Mapping[str, list[int]]], processor: Any) -> dict[str, Tensor]:
    """Returns `input_ids`, `attention_mask` and `labels`, each [batch, window]; every token is scored."""
    batch = inputs([f["input_ids"] for f in features], processor)
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)}


def texts(row: Mapping[str, str]) -> list[str]:
    """Returns the document."""
    return [_text(row)]


def _text(row: Mapping[str, Any]) -> str:
    if "text" not in row:
        raise Problem("these rows are input_ids, and text is needed here", hint="input_ids calibrate and train")
    return row["text"]


def predict(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, str]],
    start: int,
    batch_size: int,
    *,
    protocol: Literal["ppl-concat", "word-ppl", "word-ppl-wikitext"] = "ppl-concat",
    window: Count = 2048,
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

        def per_window(batch: list[dict[str, list[int]]]) -> list[dict[str, Any]]:
            losses = _nll(model, processor, [(w["input_ids"][:-1], w["input_ids"][1:]) for w in batch])
            return [{"protocol": name, "nll": nll, "tokens": window - 1} for nll in losses]

        return in_batches(_windows(rows, processor, window), start, batch_size, per_window)

    def per_document(batch: list[Mapping[str, str]]) -> list[dict[str, Any]]:
        (text,) = map(_text, batch)
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
    if window > (context := positions(model.config)):
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
