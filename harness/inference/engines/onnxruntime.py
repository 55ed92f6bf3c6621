"""ONNX Runtime on the CPU: another program's dense float32 engine, as a peer.

The model is written as an ONNX graph of one step and read by the runtime, which fuses what it knows. Zeros are
multiplied like the rest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from harness.inference.onnx import WRITERS, Graph, export, missing

DEVICE = "cpu"
PEER = True


def prepare(model: nn.Module) -> nn.Module:
    """ONNX Runtime, dense float32.

    Args:
        model: A decoder-only model of transformers, float32, on the CPU.

    Returns:
        The runtime in the model's place.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, Path(folder))
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return Graph(model, lambda given: session.run(None, given))


def available() -> str | None:
    """Returns which packages it lacks here."""
    return missing((*WRITERS, "onnxruntime"))


def exact() -> bool:
    """Says yes: only the order of the sums differs."""
    return True
