"""T5's decoder: RMS norms, learned penalties by distance, unscaled scores, attention to the encoder, ReLU or GELU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from harness.inference.native._tokens import embedded
from harness.inference.native.program import Program, Tables, View

STACKS = ("T5Stack",)
LAYERS, CROSSED = "block", True


def refusal(stack: nn.Module) -> str | None:
    """Returns why a stack cannot be written, or None."""
    return None


def write(stack: nn.Module, program: Program) -> None:
    """Writes all blocks and the final norm."""
    x = program.input
    for layer, block in enumerate(stack.block):
        own, crossed, last = block.layer
        program.expect(block, "T5Block")
        program.expect(own.SelfAttention, "T5Attention")
        program.expect(crossed.EncDecAttention, "T5Attention")
        shape = {
            "layer": layer,
            "heads": own.SelfAttention.n_heads,
            "shared": own.SelfAttention.n_heads,
            "dim": own.SelfAttention.key_value_proj_dim,
            "scale": 1.0,
        }
        with program.block():
            attention, normed = own.SelfAttention, program.norm(own.layer_norm, x)
            q, k, v = (program.linear(each, normed) for each in (attention.q, attention.k, attention.v))
            program.add(x, program.linear(attention.o, program.attend(q, k, v, **shape)))
            attention = crossed.EncDecAttention
            q = program.linear(attention.q, program.norm(crossed.layer_norm, x))
            program.add(x, program.linear(attention.o, program.attend(q, **shape)))
            dense = last.DenseReluDense
            active = _active(stack, program, dense, program.norm(last.layer_norm, x))
            program.add(x, program.linear(dense.wo, active))
    program.finish(program.norm(stack.final_layer_norm, x))


def _active(stack: nn.Module, program: Program, dense: nn.Module, x: View) -> View:
    name = stack.config.dense_act_fn
    if not stack.config.is_gated_act:
        return program.activate(name, program.linear(dense.wi, x))
    gate, linear = program.linear(dense.wi_0, x), program.linear(dense.wi_1, x)
    return program.activate(name, gate, linear)


def embed(stack: nn.Module, given: Mapping[str, Any], length: int) -> Tensor:
    """Returns the new tokens embedded, [batch, 1, width]."""
    return embedded(stack, given)


def tables(stack: nn.Module, length: int) -> Tables:
    """Returns what is added to the score of a key so many tokens before."""
    attention = stack.block[0].layer[0].SelfAttention
    by_key = attention.compute_bias(1, length, past_seen_tokens=length - 1)
    return Tables(length, distances=by_key[0, :, 0].flip(-1).float().contiguous())
