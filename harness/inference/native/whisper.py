"""Whisper's decoder: norms, learned positions, attention to what was heard, a feed-forward layer with GELU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from harness.inference.native._tokens import embedded
from harness.inference.native.program import Program, Tables

STACKS = ("WhisperDecoder",)
LAYERS, CROSSED = "layers", True


def refusal(stack: nn.Module) -> str | None:
    """Returns why a stack cannot be written, or None."""
    return None


def write(stack: nn.Module, program: Program) -> None:
    """Writes all blocks and the final norm."""
    x = program.input
    for layer, block in enumerate(stack.layers):
        own, crossed = block.self_attn, block.encoder_attn
        program.expect(block, "WhisperDecoderLayer")
        program.expect(own, "WhisperAttention")
        program.expect(crossed, "WhisperAttention")
        heads = own.num_heads
        shape = {"layer": layer, "heads": heads, "shared": heads, "dim": own.head_dim, "scale": own.scaling}
        with program.block():
            normed = program.norm(block.self_attn_layer_norm, x)
            q, k, v = (program.linear(each, normed) for each in (own.q_proj, own.k_proj, own.v_proj))
            program.add(x, program.linear(own.out_proj, program.attend(q, k, v, **shape)))
            q = program.linear(crossed.q_proj, program.norm(block.encoder_attn_layer_norm, x))
            program.add(x, program.linear(crossed.out_proj, program.attend(q, **shape)))
            wide = program.linear(block.fc1, program.norm(block.final_layer_norm, x))
            active = program.activate(stack.config.activation_function, wide)
            program.add(x, program.linear(block.fc2, active))
    program.finish(program.norm(stack.layer_norm, x))


def embed(stack: nn.Module, given: Mapping[str, Any], length: int) -> Tensor:
    """Returns the new tokens embedded and their positions added, [batch, 1, width]."""
    x = embedded(stack, given)
    return x + stack.embed_positions(x, past_key_values_length=length, position_ids=given.get("position_ids"))


def tables(stack: nn.Module, length: int) -> Tables:
    """Returns nothing: positions are learned, and added to the tokens."""
    return Tables(length)
