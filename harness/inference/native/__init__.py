"""A decode step of a whole stack in one call of compiled code, in the place of a Python call for every layer.

    norm -> q k v -> rotary -> cache -> attention -> o, + -> norm -> gate up -> silu x -> down, +  -> the next block

A step of a small model is over in a few milliseconds, of which Python would take more than the products. `install`
gives a model's decoder a `forward` that runs a step of one token for up to 16 rows natively: `stack.py` says which
calls these are. Every other call, the prompt's first of all, is transformers' own and uses the same packed weights.
`generate`, with beams, samples or padded batches, and its cache are used as ever.

A file here that is named after a family writes its stack down as a program (`program.py`) of the operations of
`kernels/source/step.cpp`:

    STACKS, LAYERS, CROSSED                     the classes of transformers that it knows, where they keep their blocks,
                                                and whether these attend to an encoder
    refusal(stack) -> str | None                why this one cannot be written, by its configuration
    write(stack, program)                       the operations, from the embedded token to the final norm
    embed(stack, given, length) -> Tensor       the tokens embedded, the next after so many, [batch, 1, width]
    tables(stack, length) -> Tables             what depends on positions alone, for so many of them
"""

from __future__ import annotations

import collections

from torch import nn

from harness.inference.native import llama, mpt, opt, t5, whisper
from harness.inference.native.program import Unsupported
from harness.inference.native.stack import NATIVE as NATIVE
from harness.inference.native.stack import Native

FAMILIES = (llama, mpt, opt, t5, whisper)


def install(model: nn.Module) -> str | None:
    """Lets a model with packed linears decode natively where a family here knows its decoder.

    Args:
        model: A model of transformers; its decoder gets another `forward`.

    Returns:
        Why it decodes as before; None where it was changed.
    """
    try:
        native = _native(model)
    except Unsupported as why:
        return str(why)
    native.stack.forward = native
    return None


def counts(model: nn.Module) -> dict[str, int]:
    """Returns how many calls of a model's decoder were native so far, and how many were not, by the reason."""
    found = (module.__dict__.get("forward") for module in model.modules())
    return dict(sum((each.counts for each in found if isinstance(each, Native)), collections.Counter()))


def refusal(model: nn.Module) -> str | None:
    """Returns why a model with packed linears cannot decode natively; None where it can."""
    try:
        _native(model)
    except Unsupported as why:
        return str(why)
    return None


def _native(model: nn.Module) -> Native:
    """Returns the native `forward` of a model's decoder.

    Raises:
        Unsupported: No family knows it, or it holds what no operation computes.
    """
    for stack in model.modules():
        family = next((each for each in FAMILIES if type(stack).__name__ in each.STACKS), None)
        if family and getattr(stack, "is_decoder", True):  # T5 has one class for both stacks
            native = Native(stack, family)
            native.program()
            return native
    raise Unsupported(f"no program is known for {type(model).__name__}")
