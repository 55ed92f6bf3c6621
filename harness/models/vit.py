"""ViT and DeiT: an image's patches and a [CLS] token through Transformer encoder blocks (arXiv:2010.11929, 2012.12877).

Prunable: q_proj, k_proj, v_proj, o_proj of the attention, fc1 and fc2 of every block; the patch embedding, which is a
convolution, and the classifier stay dense. There is no padding: every patch and every special token counts ([CLS], and
a distilled DeiT's second one). A distilled DeiT has two heads and, in transformers, no loss: it can be pruned by what
needs no gradient and no judged trial, and evaluated, not tuned.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from harness.models import Block, stack_blocks

MODEL_TYPES = ("vit", "deit")
MODEL = "AutoModelForImageClassification"
PROCESSOR = "AutoImageProcessor"
PROCESSOR_OPTIONS = {"backend": "pil"}
"""Torchvision, where it is installed, would be preferred, and resizes to slightly other pixels."""
TASKS = ("classification",)


def blocks(model: nn.Module) -> list[Block]:
    """ViT and DeiT: image classification with an encoder over patches."""
    return stack_blocks(model, f"{model.base_model_prefix}.layers", "encoder", r"^mlp\.")


def valid(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All positions, patches and special tokens alike; bool [batch, positions]."""
    pixels = batch["pixel_values"]
    positions = model.base_model.embeddings.position_embeddings.shape[1]
    return {"encoder": torch.ones(len(pixels), positions, dtype=torch.bool, device=pixels.device)}


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norm after the last block."""
    return {"encoder": model.base_model.layernorm}


def tiny(texts: Iterable[str], *, seed: int) -> tuple[ViTForImageClassification, ViTImageProcessorPil]:
    """Builds a ViT of 4 blocks, width 128, that sees 32 x 32 pixels in patches of 8 x 8, and its image processor.

    Args:
        texts: The classes' names, in the order of their numbers; a name that comes again is the same class.
        seed: Seed of the random weights.
    """
    names = dict(enumerate(dict.fromkeys(texts)))
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    processor = ViTImageProcessorPil(size={"height": config.image_size, "width": config.image_size})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViTForImageClassification(config).eval(), processor
