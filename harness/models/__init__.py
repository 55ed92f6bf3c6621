"""Models, a family a file: its blocks in execution order, their prunable linears, its padding, its tiny form.

A family answers five questions about a model of transformers, and nothing else in the harness knows an architecture:

- `blocks(model)`: the Transformer blocks in execution order, each with the `nn.Linear`s that may be pruned. Embeddings,
  heads, norms, position biases and convolution stems are in no block or are no `nn.Linear`, so they stay dense.
- `valid(model, batch)`: which positions of each stack count; padding must enter no statistic and no distillation loss.
- `norms(model)`: the final norm of each stack.
- `tiny(texts, seed=...)`: a small random model and its processor, made for the texts that the task says of its rows:
  a tokenizer is trained on them, an image model's classes are named by them.
- the constants `MODEL_TYPES` (names in `config.json`), `MODEL` and `PROCESSOR` (classes of transformers), and `TASKS`,
  the tasks that its models can serve. `PROCESSOR_OPTIONS` says how the processor is loaded, where it matters.

A family whose processor has a file that transformers does not write names it in `files(processor)`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
import transformers
from torch import nn

from harness import rooms
from harness.problems import Problem, unknown
from harness.runs import usable
from harness.sources import Source

IGNORED = -100
"""The label of a position that is not scored, as in transformers."""
Part = Literal["attention", "feed_forward"]


@dataclass(frozen=True)
class Linear:
    """A prunable linear layer.

    Attributes:
        name: Full dotted name of the module in the model.
        module: The layer; its weight is [out, in].
        reads: The stack ("encoder" or "decoder") whose token positions its inputs are: a decoder's cross-attention
            keys and values read the encoder's.
        part: Which half of its block it belongs to.
    """

    name: str
    module: nn.Linear
    reads: str
    part: Part


@dataclass(frozen=True)
class Block:
    """A Transformer block: its dotted name, module, stack ("encoder" or "decoder") and prunable linears."""

    name: str
    module: nn.Module
    stack: str
    linears: tuple[Linear, ...]


def stack_blocks(
    model: nn.Module,
    path: str,
    stack: str,
    feed_forward: str,
    reads_encoder: Callable[[str], bool] = lambda name: False,
) -> list[Block]:
    """Returns the blocks of one `nn.ModuleList`, every `nn.Linear` inside a block being prunable.

    Args:
        model: The whole model.
        path: Dotted name of the list of blocks in the model.
        stack: "encoder" or "decoder".
        feed_forward: A regular expression that is found in a linear's name inside its block where it belongs to the
            feed-forward half.
        reads_encoder: Whether the linear of this name inside its block reads encoder positions whatever its stack.
    """
    found = []
    for index, module in enumerate(model.get_submodule(path)):
        name = f"{path}.{index}"
        linears = tuple(
            Linear(
                f"{name}.{inner}",
                layer,
                "encoder" if reads_encoder(inner) else stack,
                "feed_forward" if re.search(feed_forward, inner) else "attention",
            )
            for inner, layer in module.named_modules()
            if isinstance(layer, nn.Linear)
        )
        found.append(Block(name, module, stack, linears))
    return found


def model_type(model: Any) -> str:
    """Returns the `model_type` of a model, a config, or a folder that holds a `config.json`."""
    if isinstance(model, str | Path):
        file = Path(model) / "config.json"
        if not file.is_file():
            raise Problem("there is no model here: no config.json", where=str(model))
        return json.loads(file.read_text(encoding="utf8")).get("model_type", "")
    return getattr(model, "config", model).model_type


def family(model: Any) -> ModuleType:
    """Returns the family's module for a model, a config, or a model folder.

    Raises:
        Problem: No family knows this `model_type`.
    """
    kind = model_type(model)
    room = rooms.ROOMS["model"]
    known = {each: name for name in room.names() for each in room.method(name).constants["MODEL_TYPES"]}
    if kind not in known:
        raise unknown("model type", kind, known)
    return rooms.load("model", known[kind])


def blocks(model: nn.Module) -> list[Block]:
    """Returns a model's blocks in execution order.

    Raises:
        Problem: The model has no prunable linear.
    """
    found = family(model).blocks(model)
    if not any(block.linears for block in found):
        raise Problem(f"{type(model).__name__} has no prunable linear layer in its {len(found)} blocks")
    return found


def valid(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns, per stack, the positions of a batch that are not padding: bool [batch, positions]."""
    return family(model).valid(model, batch)


def causal(model: nn.Module) -> bool:
    """Says whether position t - 1 predicts label t: in decoder-only language models, and in no other."""
    return not model.config.is_encoder_decoder and model.main_input_name == "input_ids"


def placed(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns a batch on the model's device, its floating-point tensors in the model's dtype."""
    floats = {name: model.dtype for name, value in batch.items() if value.is_floating_point()}
    return {name: value.to(model.device, floats.get(name)) for name, value in batch.items()}


def scored(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> int:
    """Returns how many labels of a batch the model's own loss is the mean over."""
    labels = batch["labels"][:, 1:] if causal(model) else batch["labels"]
    return int((labels != IGNORED).sum())


def loss(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns the model's own loss on a batch, the mean over its scored labels; no key or value is cached.

    Args:
        model: A model of a known family, not wrapped.
        batch: Keyword arguments of the model, with labels, on its device and in its dtype.

    Raises:
        Problem: The model gives no loss, as a distilled DeiT.
    """
    takes = inspect.signature(model.forward).parameters
    found = getattr(model(**batch, **({"use_cache": False} if "use_cache" in takes else {})), "loss", None)
    if found is None:
        raise no_loss(model)
    return found


def no_loss(model: nn.Module) -> Problem:
    """Returns the problem that a model gives no loss for its labels."""
    return Problem(f"{type(model).__name__} gives no loss for its labels", hint="take a method that needs none")


def attended(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the positions of `input_ids` by the attention mask, all of them where there is none: [batch, tokens]."""
    mask = batch.get("attention_mask")
    return (torch.ones_like(batch["input_ids"]) if mask is None else mask).bool()


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the final norm of each stack."""
    return family(model).norms(model)


def _origin(source: Path | str | Source) -> tuple[str, dict[str, str]]:
    """Returns what `from_pretrained` is to be given: a folder, or a hub name with its revision."""
    if isinstance(source, Source) and source.path is None:
        return source.name, {"revision": source.revision}
    folder = source.path if isinstance(source, Source) else source
    return str(folder), {}


@contextlib.contextmanager
def reading(what: str, origin: str) -> Iterator[None]:
    """Turns what transformers says of files that it cannot read into a problem: its words, and the folder.

    It says so by errors of every type: tokenizers by a bare `Exception`, a config with a wrong value by several.
    """
    try:
        yield
    except (Problem, MemoryError):
        raise
    except Exception as error:
        said = (" ".join(str(error).split()) or type(error).__name__).rstrip(".:")
        raise Problem(f"transformers cannot load the {what} here: {said}", where=origin) from error


def load(source: Path | str | Source, dtype: str = "float32") -> transformers.PreTrainedModel:
    """Loads a model from a folder or from where a `Source` says, in eval mode, on the CPU.

    Args:
        source: A model folder, or a `Source` (hub, mirror, folder).
        dtype: Name of a torch floating-point type, in which the weights are loaded.

    Raises:
        Problem: Its files cannot be read, or lack weights, which transformers draws at random.
    """
    origin, revision = _origin(source)
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise unknown("dtype", dtype, ("float32", "bfloat16", "float16"))
    with reading("model", origin):
        config = transformers.AutoConfig.from_pretrained(origin, **revision)
        auto = getattr(transformers, family(config).MODEL)
        report = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # instead of warnings and tables
        model, info = auto.from_pretrained(origin, dtype=getattr(torch, dtype), **report, **revision)
    if drawn := sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}):
        first = ", ".join(drawn[:3]) + (", ..." if len(drawn) > 3 else "")
        what = f"{len(drawn)} of the model's weights are not here, or have another shape: {first}"
        raise Problem(what, where=origin, hint="its config.json and its weights do not belong together")
    return model.eval()


def load_processor(source: Path | str | Source) -> Any:
    """Loads the tokenizer, the speech model's feature extractor and tokenizer, or the image processor of a model.

    Raises:
        Problem: The folder holds none, or one that cannot be read.
    """
    origin, revision = _origin(source)
    with reading("processor", origin):
        known = family(transformers.AutoConfig.from_pretrained(origin, **revision))
        if Path(origin).is_dir():
            usable.check_processor(Path(origin), known.PROCESSOR)
        options = getattr(known, "PROCESSOR_OPTIONS", {})
        return getattr(transformers, known.PROCESSOR).from_pretrained(origin, **options, **revision)


def save(model: transformers.PreTrainedModel, processor: Any, folder: Path | str) -> None:
    """Writes a folder that plain transformers loads: config, generation config, safetensors, processor."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    known = family(model)
    for name, content in known.files(processor).items() if hasattr(known, "files") else ():
        (Path(folder) / name).write_text(content, encoding="utf8")
