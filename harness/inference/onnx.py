"""A decoder-only model as an ONNX graph of one step, and a runtime that runs the graph in the model's place.

    (input_ids, attention_mask, past keys and values) -> (logits, present keys and values)

One graph reads the prompt, with no past, and every later token. PyTorch's exporter needs the packages onnx and
onnxscript; what it cannot trace (an encoder, MPT's positions, which depend on the lengths) is refused.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from harness.inference.greedy import takes_last
from harness.problems import Problem

FILE = "model.onnx"
WRITERS = ("onnx", "onnxscript")
Arrays = dict[str, np.ndarray]


def missing(packages: tuple[str, ...]) -> str | None:
    """Returns that packages are not installed: which."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class Step(nn.Module):
    """One step of a model with its cache as plain tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.given = {"logits_to_keep": 1} if takes_last(type(model)) else {}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        """Returns logits [batch, 1, vocabulary], then keys and values [batch, heads, past + new, width].

        The logits are the last position's, which are all that generation asks for: of other engines too (`greedy`).

        Args:
            input_ids: [batch, new].
            attention_mask: [batch, past + new].
            past: Keys and values of each layer in turn, [batch, heads, past, width].
        """
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(keys, values, layer)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **self.given}
        out = self.model(**given, past_key_values=cache, use_cache=True)
        present = (each for layer in out.past_key_values.layers for each in (layer.keys, layer.values))
        return out.logits[:, -1:], *present


@torch.no_grad()
def export(model: nn.Module, folder: Path) -> Path:
    """Writes the graph of a model's step.

    Args:
        model: Decoder-only, float32, on the CPU.
        folder: Where `model.onnx` goes, large weights beside it.

    Raises:
        Problem: A package is missing, or PyTorch cannot trace the model.
    """
    if reason := missing(WRITERS):
        raise Problem(f"an ONNX graph cannot be written here: {reason}", hint=f"pip install {' '.join(WRITERS)}")
    if model.config.is_encoder_decoder or model.main_input_name != "input_ids":
        hint = "decoder-only language models can be; other engines run this one"
        raise Problem(f"{type(model).__name__} is not written as one step", hint=hint)
    given, shapes = example(model)
    names = {
        "input_names": ["input_ids", "attention_mask", *(f"past.{i}" for i in range(len(given[2])))],
        "output_names": ["logits", *(f"present.{i}" for i in range(len(given[2])))],
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                Step(model), given, folder / FILE, dynamo=True, dynamic_shapes=shapes, verbose=False, **names
            )
        except torch.onnx.OnnxExporterError as error:
            said = str(error.__cause__ or error).strip().splitlines()[0]
            raise Problem(f"PyTorch cannot write {type(model).__name__} as an ONNX graph: {said}") from error
    return folder / FILE


@torch.no_grad()
def example(model: nn.Module) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Returns what a step is traced with, and which of its dimensions are free: batch, new tokens and past."""
    ids = torch.ones(2, 3, dtype=torch.long)
    first = model(input_ids=ids[:, :2], use_cache=True).past_key_values
    past = [each for layer in first.layers for each in (layer.keys, layer.values)]
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 1: free}, {0: free, 1: free}, [{0: free, 2: free} for _ in past])
    return (ids, torch.ones(2, 5, dtype=torch.long), past), shapes


class Graph(nn.Module):
    """A runtime that runs a model's step, in the model's place: called and asked as the model is."""

    def __init__(self, model: nn.Module, run: Callable[[Arrays], list[np.ndarray]]) -> None:
        """Takes from the model what it says of itself; its weights are the runtime's now.

        Args:
            model: The model that was exported.
            run: From the graph's inputs by name to its outputs in order.
        """
        super().__init__()
        self.config, self.generation_config = model.config, model.generation_config
        self.main_input_name, self.device, self.dtype = model.main_input_name, torch.device("cpu"), torch.float32
        text = model.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.empty = (heads, 0, width)
        self.layers, self.run = text.num_hidden_layers, run

    def forward(
        self, input_ids: Tensor, past_key_values: list[np.ndarray] | None = None, use_cache: bool = True
    ) -> SimpleNamespace:
        """Returns `logits` and `past_key_values`, as the model does; the cache stays the runtime's arrays."""
        batch, new = input_ids.shape
        past = past_key_values or [np.zeros((batch, *self.empty), np.float32)] * (2 * self.layers)
        mask = np.ones((batch, past[0].shape[2] + new), np.int64)
        given: Mapping[str, np.ndarray] = {f"past.{i}": each for i, each in enumerate(past)}
        logits, *present = self.run({"input_ids": input_ids.numpy(), "attention_mask": mask, **given})
        return SimpleNamespace(logits=torch.from_numpy(np.array(logits)), past_key_values=present)
