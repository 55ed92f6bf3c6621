"""OPT: a decoder-only Transformer with learned positions, biases and ReLU feed-forward layers (arXiv:2205.01068).

Prunable: q_proj, k_proj, v_proj, out_proj, fc1 and fc2 of every block, as in SparseGPT and Wanda. Where the word
embedding is narrower than the blocks (opt-350m), the two projections between them stay dense: they stand outside the
blocks. opt-350m is also the one post-norm model: each of its blocks ends with its own layer norm, nothing follows the
last one, and so its final norm is the last block's.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from harness.models import Block, attended, stack_blocks
from harness.models._tokenizer import train
from harness.problems import Problem

MODEL_TYPES = ("opt",)
MODEL = "AutoModelForCausalLM"
PROCESSOR = "AutoTokenizer"
TASKS = ("language_modelling", "reasoning", "instruction", "zero_shot", "humaneval")


def blocks(model: nn.Module) -> list[Block]:
    """OPT: decoder-only with learned positions and biases."""
    return stack_blocks(model, "model.decoder.layers", "decoder", r"^fc\d$")


def valid(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Positions by the attention mask, all of them where there is none; bool [batch, tokens]."""
    return {"decoder": attended(batch)}


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norm after the last block's feed-forward: the decoder's own, or the last block's in a post-norm model.

    Raises:
        Problem: The model is pre-norm and has no final norm (checkpoints converted before transformers 4.20).
    """
    decoder = model.model.decoder
    if decoder.final_layer_norm is not None:
        return {"decoder": decoder.final_layer_norm}
    if model.config.do_layer_norm_before:
        raise Problem("this OPT has no norm after its last block", hint="a loss on final norms cannot be had for it")
    return {"decoder": decoder.layers[-1].final_layer_norm}


def tiny(texts: Iterable[str], *, seed: int) -> tuple[OPTForCausalLM, PreTrainedTokenizerFast]:
    """Builds an OPT of 3 blocks, width 128, and a tokenizer that begins texts with </s>, as OPT's own.

    Args:
        texts: Texts to train the tokenizer on.
        seed: Seed of the random weights.
    """
    core = train(texts, ("<s>", "<pad>", "</s>", "<unk>"))
    core.post_processor = TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", core.token_to_id("</s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=1024,
    )
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=3,
        ffn_dim=512,
        num_attention_heads=4,
        max_position_embeddings=1024,
        dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OPTForCausalLM(config).eval(), tokenizer
