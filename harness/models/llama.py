"""LLaMA and its kin: decoder-only Transformers with rotary positions and gated feed-forward layers (arXiv:2302.13971).

One file serves every architecture of transformers that keeps its blocks in `model.model.layers`, its final norm in
`model.model.norm` and its projections in `nn.Linear`s. Prunable: all of them (q, k, v, o and gate, up, down; where an
architecture fuses some, the fused matrix).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.models import Block, attended, stack_blocks
from harness.models._tokenizer import train

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "granite", "olmo2", "phi3", "starcoder2")
MODEL = "AutoModelForCausalLM"
PROCESSOR = "AutoTokenizer"
TASKS = ("language_modelling", "reasoning", "instruction", "zero_shot", "humaneval")


def blocks(model: nn.Module) -> list[Block]:
    """LLaMA, Mistral, Qwen, SmolLM and others: decoder-only with rotary positions."""
    return stack_blocks(model, "model.layers", "decoder", r"^mlp\.")


def valid(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Positions by the attention mask, all of them where there is none; bool [batch, tokens]."""
    return {"decoder": attended(batch)}


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norm after the last block."""
    return {"decoder": model.model.norm}


def tiny(texts: Iterable[str], *, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Builds a LLaMA of 4 blocks, width 128, 4 heads on 2 key-value heads, and a tokenizer that begins texts with <s>.

    Args:
        texts: Texts to train the tokenizer on.
        seed: Seed of the random weights.
    """
    core = train(texts, ("<pad>", "<s>", "</s>", "<unk>"))
    core.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=1024,
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval(), tokenizer
