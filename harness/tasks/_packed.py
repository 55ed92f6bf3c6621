"""Packed documents: each tokenised by itself, one after another, cut into windows wherever they end.

    <s> document <s> document ...          a tokenizer that marks documents itself, as LLaMA's does their beginning
    document <eos> document <eos> ...      one that adds no special token: its end token follows each

This is how text is packed for pretraining, and how LoRS does it with LLaMA's tokenizer (hyx1999/Lors, prepare_data.py),
except that a remainder of less than a window is dropped once, not after every thousand documents. Attention crosses
from one document into the next, there too. Sparse Llama's packing could not be found.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy

from harness import remembered
from harness.problems import Problem
from harness.tasks._token_file import Encode, tokens
from harness.tasks._windows import Windows

FORMAT = 1
"""Of the token file and of what is packed into it: another one is another file."""


class Packed(Sequence[dict[str, list[int]]]):
    """Windows of packed documents, which are tokenised when the first window is asked for.

    By itself it keeps the tokens of all documents in a temporary file, for as long as it lives. `kept` keeps them.

    Attributes:
        length: Tokens of every window.
    """

    def __init__(self, rows: Iterable[Mapping[str, str]], processor: Any, length: int):
        self._rows, self._processor, self.length = rows, processor, length

    def kept(self, name: str, identity: Sequence[Any], windows: int | None = None) -> Windows:
        """Returns the first `windows` windows, or all, from a file in the user's cache folder that later runs read too.

        Args:
            name: Begins the name of its folder, for people.
            identity: All that decides the rows, as JSON.
            windows: How many are needed; documents after these are not looked at.

        Raises:
            Problem: The tokenizer cannot pack, the documents are shorter than one window, or the file cannot be
                written.
        """
        whole = json.dumps([FORMAT, numpy.little_endian, *identity, *self._tokenizer])
        digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
        return self._windows(remembered.folder() / "tokens" / f"{name}-{digest}", windows)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._all[index]

    @cached_property
    def _all(self) -> Windows:
        self._folder = tempfile.TemporaryDirectory(prefix="tokens-")
        return self._windows(Path(self._folder.name), None)

    @cached_property
    def _tokenizer(self) -> tuple[str, int | None]:
        return _tokenizer(self._processor)

    def _windows(self, folder: Path, count: int | None) -> Windows:
        encode = _encoder(*self._tokenizer)
        dtype = numpy.dtype(numpy.uint16 if len(self._processor) <= 2**16 else numpy.uint32)
        texts = (row["text"] for row in self._rows)
        enough = None if count is None else count * self.length
        return Windows(tokens(folder, texts, encode, dtype, enough), self.length)


def _encoder(backend: str, end: int | None) -> Encode:
    """Returns the function that tokenises documents in parallel, without places in the text, which nobody reads."""
    after = [] if end is None else [end]

    @cache
    def tokenizer() -> Any:  # read when it is needed, which takes a second
        from tokenizers import Tokenizer

        return Tokenizer.from_str(backend)

    def encode(texts: list[str]) -> Iterator[list[int]]:
        return (encoding.ids + after for encoding in tokenizer().encode_batch_fast(texts))

    return encode


def _tokenizer(processor: Any) -> tuple[str, int | None]:
    """Returns the tokenizer as JSON, without truncation or padding, and the end token where documents need it.

    Raises:
        Problem: It is none of the `tokenizers` library, or has nothing to tell documents apart by.
    """
    if not getattr(processor, "is_fast", False):
        hint = "cut=joined takes every tokenizer"
        raise Problem("documents are packed by a tokenizer of the `tokenizers` library, and this is none", hint=hint)
    backend = json.dumps({**json.loads(processor.backend_tokenizer.to_str()), "truncation": None, "padding": None})
    if processor.num_special_tokens_to_add():
        return backend, None
    if processor.eos_token_id is None:
        hint = "cut=joined puts blank lines between documents"
        raise Problem("this tokenizer has no token that ends a document", hint=hint)
    return backend, processor.eos_token_id
