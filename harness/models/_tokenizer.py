"""A small byte-level BPE tokenizer for the tiny models, trained on the texts of the task.

Byte-level, so that any text can be written and nothing is unknown; `tokenizers` counts and merges deterministically, so
equal texts give an equal vocabulary. Source: Sennrich et al., arXiv:1508.07909; bytes as base symbols as in GPT-2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE = 1024
"""Entries of a tiny vocabulary: 256 bytes, the special tokens, the rest merges."""


def train(texts: Iterable[str], special: Sequence[str], *, add_prefix_space: bool = False) -> Tokenizer:
    """Trains a byte-level BPE tokenizer with at most `SIZE` entries.

    Args:
        texts: The training texts.
        special: Special tokens, which get the first ids in this order.
        add_prefix_space: Whether a text is read as if a space stood before it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
