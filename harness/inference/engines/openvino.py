"""OpenVINO on the CPU: another program's dense engine, as a peer.

It reads the ONNX graph of one step. Its own sparse decompression works with AMX and int8 only, so zeros are multiplied
like the rest here. Arithmetic is asked to be float32: by itself it takes bfloat16 where the processor has it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from harness.inference.onnx import WRITERS, Graph, export, missing

DEVICE = "cpu"
PEER = True
TYPES = {"fp32": "f32", "bf16": "bf16"}


def prepare(model: nn.Module, *, precision: Literal["fp32", "bf16"] = "fp32") -> nn.Module:
    """OpenVINO, dense.

    Args:
        model: A decoder-only model of transformers, float32, on the CPU.
        precision: The arithmetic that it may use.

    Returns:
        The runtime in the model's place.
    """
    import openvino

    asked = {"INFERENCE_PRECISION_HINT": TYPES[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        compiled = openvino.Core().compile_model(export(model, Path(folder)), "CPU", asked)
    return Graph(model, lambda given: [each.copy() for each in compiled(given).values()])


def available() -> str | None:
    """Returns which packages it lacks here."""
    return missing((*WRITERS, "openvino"))


def exact(*, precision: Literal["fp32", "bf16"] = "fp32") -> bool:
    """Says whether it rounds nothing."""
    return precision == "fp32"
