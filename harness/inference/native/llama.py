"""LLaMA and its kin: RMS norms, rotary positions, keys and values for groups of heads, a gated feed-forward layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.inference.native._tokens import embedded
from harness.inference.native.program import Program, Tables

STACKS = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
LAYERS, CROSSED = "layers", False
ROTARY = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose frequencies do not depend on how long the text is."""


def refusal(stack: nn.Module) -> str | None:
    """Returns why a stack cannot be written, or None."""
    config = stack.config
    if stack.rotary_emb.rope_type not in ROTARY:
        return f"rotary embeddings of type {stack.rotary_emb.rope_type}"
    if type(stack).__name__ == "MistralModel" and config.sliding_window is not None:
        return "a sliding window"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "a sliding window"
    return None


def write(stack: nn.Module, program: Program) -> None:
    """Writes all blocks and the final norm."""
    config, kind = stack.config, type(stack).__name__.removesuffix("Model")
    x = program.input
    for layer, block in enumerate(stack.layers):
        attention, mlp = block.self_attn, block.mlp
        program.expect(block, f"{kind}DecoderLayer")
        program.expect(attention, f"{kind}Attention")
        program.expect(mlp, f"{kind}MLP")
        heads, dim = config.num_attention_heads, attention.head_dim
        shared = config.num_key_value_heads
        with program.block():
            normed = program.norm(block.input_layernorm, x)
            q, k, v = (program.linear(each, normed) for each in (attention.q_proj, attention.k_proj, attention.v_proj))
            if kind == "Qwen3":
                program.norm_heads(attention.q_norm, q, heads, dim)
                program.norm_heads(attention.k_norm, k, shared, dim)
            program.rotate(q, heads, dim)
            program.rotate(k, shared, dim)
            scale = attention.scaling
            found = program.attend(q, k, v, layer=layer, heads=heads, shared=shared, dim=dim, scale=scale)
            program.add(x, program.linear(attention.o_proj, found))
            normed = program.norm(block.post_attention_layernorm, x)
            gate, up = program.linear(mlp.gate_proj, normed), program.linear(mlp.up_proj, normed)
            program.add(x, program.linear(mlp.down_proj, program.activate(config.hidden_act, gate, up)))
    program.finish(program.norm(stack.norm, x))


def embed(stack: nn.Module, given: Mapping[str, Any], length: int) -> Tensor:
    """Returns the new tokens embedded, [batch, 1, width]."""
    return embedded(stack, given)


def tables(stack: nn.Module, length: int) -> Tables:
    """Returns the cosines and sines of so many positions."""
    kind, positions = torch.empty(0, dtype=torch.float32, device="cpu"), torch.arange(length, device="cpu")
    cosines, sines = (each[0].float().contiguous() for each in stack.rotary_emb(kind, positions[None]))
    return Tables(length, cosines=cosines, sines=sines)
