"""torchao's int8 linears, not compiled: what is to take the place of PyTorch's own int8 routines (`torch_int8`).

    W ~ s_row Q,  and with 8-bit activations x ~ s_token q         s = max / 127.5

Zeros are multiplied like the rest. torchao counts on `torch.compile`. Without it, Q is made float32 at every call, or,
with 8-bit activations, its rows are summed at every call (where the processor has VNNI and no AMX), and both are slower
than dense float32: with the output layer in int8 too 0.43 and 0.24 times as fast, where torch_int8 is 1.45 times
(results/bench/measure.SmolLM2-135M-Instruct.md, torchao 0.18). There is no option that compiles: the whole model took
minutes to compile with float activations and did not get done with 8-bit ones, and linears compiled one by one stayed
slower than dense.

It has PyTorch's threads and weights that can be read, so it is interleaved and verified as engines of ours are.
"""

from __future__ import annotations

from importlib import metadata
from typing import Literal

import torch
from torch import nn

from harness.inference.engines.torch_int8 import chosen
from harness.inference.onnx import missing

DEVICE = "cpu"


def prepare(
    model: nn.Module, *, activations: Literal["float", "int8"] = "float", head: Literal["keep", "int8"] = "keep"
) -> nn.Module:
    """Dense int8 weights with float or 8-bit activations, by torchao.

    Args:
        model: A model of transformers, float32.
        activations: Multiplied as they are, or rounded to 8 bits with a scale a token.
        head: Whether the output layer is quantised too.

    Returns:
        The model.
    """
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

    names = set(chosen(model, head))
    config = Int8WeightOnlyConfig if activations == "float" else Int8DynamicActivationInt8WeightConfig
    quantize_(model, config(set_inductor_config=False), lambda module, name: name in names)
    return model


def available() -> str | None:
    """Returns why torchao cannot be used here."""
    if absent := missing(("torchao",)):
        return absent
    try:
        from torchao.quantization import Int8Tensor  # noqa: F401
    except Exception as error:  # whatever a package for another PyTorch raises
        here = f"torchao {metadata.version('torchao')} does not go with PyTorch {torch.__version__}"
        return f"{here}: {str(error).splitlines()[0].rstrip('.')}"
    return None


def exact() -> bool:
    """Says no: weights, and activations if asked for, are rounded to 8 bits."""
    return False
