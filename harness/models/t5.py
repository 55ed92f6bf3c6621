"""T5 and mT5: encoder-decoder Transformers with relative position biases (arXiv:1910.10683).

Prunable: q, k, v, o of self- and cross-attention and the feed-forward wi (wi_0, wi_1) and wo of every block. The
decoder reads the right-shifted labels, so its positions are the labels' positions, and it counts where a label does.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from harness.models import IGNORED, Block, attended, stack_blocks
from harness.models._tokenizer import train

MODEL_TYPES = ("t5", "mt5")
MODEL = "AutoModelForSeq2SeqLM"
PROCESSOR = "AutoTokenizer"
TASKS = ("translation", "text_to_text", "zero_shot")


def blocks(model: nn.Module) -> list[Block]:
    """T5 and mT5: encoder and decoder with relative position bias."""
    cross = ("EncDecAttention.k", "EncDecAttention.v")
    return [
        *stack_blocks(model, "encoder.block", "encoder", r"DenseReluDense"),
        *stack_blocks(model, "decoder.block", "decoder", r"DenseReluDense", lambda name: name.endswith(cross)),
    ]


def valid(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Source positions by the attention mask, target positions by `labels != -100`; bool [batch, tokens] each."""
    return {"encoder": attended(batch), "decoder": batch["labels"] != IGNORED}


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The final layer norm of encoder and decoder."""
    return {"encoder": model.encoder.final_layer_norm, "decoder": model.decoder.final_layer_norm}


def tiny(texts: Iterable[str], *, seed: int) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """Builds a T5 of 2 + 2 blocks, width 128, about a million parameters, and a tokenizer that ends texts with </s>.

    Args:
        texts: Texts to train the tokenizer on.
        seed: Seed of the random weights.
    """
    core = train(texts, ("<pad>", "</s>", "<unk>"))
    core.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", core.token_to_id("</s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(config).eval(), tokenizer
