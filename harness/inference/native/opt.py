"""OPT: norms before each layer, learned positions, a feed-forward layer with ReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.inference.native._tokens import embedded
from harness.inference.native.program import Program, Tables

STACKS = ("OPTDecoder",)
LAYERS, CROSSED = "layers", False


def refusal(stack: nn.Module) -> str | None:
    """Returns why a stack cannot be written, or None."""
    if not stack.config.do_layer_norm_before or stack.final_layer_norm is None:
        return "norms behind the layers"
    return "embeddings of another width" if stack.project_in is not None else None


def write(stack: nn.Module, program: Program) -> None:
    """Writes all blocks and the final norm."""
    x = program.input
    for layer, block in enumerate(stack.layers):
        attention = block.self_attn
        heads, dim = attention.num_heads, attention.head_dim
        program.expect(block, "OPTDecoderLayer")
        program.expect(attention, "OPTAttention")
        with program.block():
            normed = program.norm(block.self_attn_layer_norm, x)
            q, k, v = (program.linear(each, normed) for each in (attention.q_proj, attention.k_proj, attention.v_proj))
            scale = attention.scaling
            found = program.attend(q, k, v, layer=layer, heads=heads, shared=heads, dim=dim, scale=scale)
            program.add(x, program.linear(attention.out_proj, found))
            wide = program.linear(block.fc1, program.norm(block.final_layer_norm, x))
            active = program.activate(stack.config.activation_function, wide)
            program.add(x, program.linear(block.fc2, active))
    program.finish(program.norm(stack.final_layer_norm, x))


def embed(stack: nn.Module, given: Mapping[str, Any], length: int) -> Tensor:
    """Returns the new tokens embedded and their positions added, [batch, 1, width]."""
    x = embedded(stack, given)
    mask = given.get("attention_mask")
    mask = torch.ones(len(x), length + 1, dtype=torch.int64, device=x.device) if mask is None else mask
    return x + stack.embed_positions(mask, length, position_ids=given.get("position_ids"))


def tables(stack: nn.Module, length: int) -> Tables:
    """Returns nothing: positions are learned, and added to the tokens."""
    return Tables(length)
