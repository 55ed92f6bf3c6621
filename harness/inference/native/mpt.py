"""MPT: norms without bias, a penalty that grows with the distance (ALiBi), a feed-forward layer with GELU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from harness.inference.native._tokens import embedded
from harness.inference.native.program import Program, Tables

STACKS = ("MptModel",)
LAYERS, CROSSED = "blocks", False


def refusal(stack: nn.Module) -> str | None:
    """Returns why a stack cannot be written, or None."""
    return "clipped queries, keys and values" if stack.blocks[0].attn.clip_qkv else None


def write(stack: nn.Module, program: Program) -> None:
    """Writes all blocks and the final norm."""
    x = program.input
    for layer, block in enumerate(stack.blocks):
        attention = block.attn
        heads, dim = attention.n_heads, attention.head_dim
        program.expect(block, "MptBlock")
        program.expect(attention, "MptAttention")
        program.expect(block.ffn.act, "GELU")
        with program.block():
            q, k, v = program.split(program.linear(attention.Wqkv, program.norm(block.norm_1, x)), 3)
            scale = attention.softmax_scale
            found = program.attend(q, k, v, layer=layer, heads=heads, shared=heads, dim=dim, scale=scale)
            program.add(x, program.linear(attention.out_proj, found))
            wide = program.linear(block.ffn.up_proj, program.norm(block.norm_2, x))
            program.add(x, program.linear(block.ffn.down_proj, program.activate("gelu", wide)))
    program.finish(program.norm(stack.norm_f, x))


def embed(stack: nn.Module, given: Mapping[str, Any], length: int) -> Tensor:
    """Returns the new tokens embedded, [batch, 1, width]."""
    return embedded(stack, given)


def tables(stack: nn.Module, length: int) -> Tables:
    """Returns what is added to the score of a key so many tokens before."""
    by_key = stack.build_mpt_alibi_tensor(stack.num_heads, length, device="cpu")
    return Tables(length, distances=by_key[:, 0].flip(-1).float().contiguous())
