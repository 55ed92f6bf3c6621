"""MPT: a decoder-only Transformer with ALiBi positions, no biases and a head tied to the embedding.

Prunable: Wqkv, out_proj, up_proj and down_proj of every block, as in SquareHead (arXiv:2310.06927).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import MptConfig, MptForCausalLM, PreTrainedTokenizerFast

from harness.models import Block, attended, stack_blocks
from harness.models._tokenizer import train

MODEL_TYPES = ("mpt",)
MODEL = "AutoModelForCausalLM"
PROCESSOR = "AutoTokenizer"
TASKS = ("language_modelling", "reasoning", "instruction", "zero_shot", "humaneval")


def blocks(model: nn.Module) -> list[Block]:
    """MPT: decoder-only with ALiBi positions and no biases."""
    return stack_blocks(model, "transformer.blocks", "decoder", r"^ffn\.")


def valid(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Positions by the attention mask, all of them where there is none; bool [batch, tokens]."""
    return {"decoder": attended(batch)}


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norm after the last block."""
    return {"decoder": model.transformer.norm_f}


def tiny(texts: Iterable[str], *, seed: int) -> tuple[MptForCausalLM, PreTrainedTokenizerFast]:
    """Builds an MPT of 3 blocks, width 128, and a tokenizer with no beginning-of-text token, as MPT's own.

    Args:
        texts: Texts to train the tokenizer on.
        seed: Seed of the random weights.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train(texts, ("<pad>", "<|endoftext|>", "<unk>")),
        pad_token="<pad>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=1024,
    )
    config = MptConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        n_heads=4,
        n_layers=3,
        max_seq_len=1024,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MptForCausalLM(config).eval(), tokenizer
