"""The weights that engines are given: of a model wherever it comes from, or read back from a packed folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from harness import exported, models
from harness.exported import PACKED, REST
from harness.inference import grids, native, storage, swap
from harness.inference.formats import Packed, unpack
from harness.inference.kernels.linear import PackedLinear
from harness.inference.values import group_size
from harness.problems import Problem
from harness.quantization import codes
from harness.quantization.grid import Grid
from harness.runs.origins import Origins
from harness.sources import Source, folder_at, model_source, snapshot
from harness.stages._load import verified


def found(model: str) -> Source:
    """Returns where a model comes from.

    Raises:
        Problem: It cannot be had or used.
    """
    if exported.is_packed(folder_at(model)):
        return model_source(model)
    origins = Origins()
    source = origins.model(model)
    origins.check()
    return source


def dense_weights(source: Path | Source) -> nn.Module:
    """Returns a model's dense float32 weights, with the grids that they lie on; those of a packed folder are expanded.

    Raises:
        Problem: The folder is not whole, or not what was written.
    """
    folder = snapshot(source) if isinstance(source, Source) else source
    if exported.is_packed(folder):
        return load(folder, dense=True)
    model = swap.bare(verified(source))
    if folder is not None and (folder / codes.FILE).is_file():
        grids.attach(model, {name: layer.grid for name, layer in codes.load(folder).items()})
    return model


def load(folder: Path, *, dense: bool = False) -> nn.Module:
    """Loads a packed model, in eval mode, on the CPU.

    Args:
        folder: What `export` wrote.
        dense: Expand the packed weights, so that every engine can have them; rounded ones stay rounded, on their grids.

    Raises:
        Problem: The folder is not whole, or not what was written.
    """
    with exported.verifying(folder) as said:
        model = _skeleton(folder)
        with ThreadPoolExecutor(1) as pool:  # the embedding is cast meanwhile
            reading = pool.submit(_rest, folder, model)
            packed = storage.load(folder / PACKED, summed=True)
            rest = reading.result()
    for name in swap.prunable(model):
        if name not in packed:
            raise Problem(f"{PACKED} lacks the layer {name}", where=str(folder), hint="export the model again")
        linear = model.get_submodule(name)
        if (found := packed[name].shape) != (wanted := tuple(linear.weight.shape)):
            raise _another(folder, f"{PACKED} has {name} as {list(found)}, not {list(wanted)}")
        _check_form(folder, said, name, packed[name])
        if dense:
            linear.weight = nn.Parameter(unpack(packed[name]), requires_grad=False)
            linear.grid = _grid(packed[name])
        else:
            swap.put(model, name, swap.weightless(PackedLinear(packed[name], rest.pop(f"{name}.bias", None))))
    _fill(model, rest, packed, folder)
    if not dense:
        native.install(model)
    return model.eval()


def _check_form(folder: Path, said: Mapping[str, Any], name: str, packed: Packed) -> None:
    """Checks that a layer is in the format and precision that its folder names."""
    wanted = (said["format"], said["precision"])
    if packed.precision != wanted[1] or wanted[0] not in (packed.format, exported.AUTO):
        found = f"{PACKED} has {name} in {packed.format} {packed.precision}"
        what = f"{found}, where {exported.FILE} says {' '.join(wanted)}"
        raise Problem(what, where=str(folder), hint="export the model again")


def _grid(packed: Packed) -> Grid | None:
    """Returns the grid that the expanded weights lie on; None where they are no integers."""
    if (scales := packed.tensors.get("scales")) is None:
        return None
    return Grid(scales, torch.zeros_like(scales), 8, group_size(packed.shape[1], scales.shape[1]))


def _another(folder: Path, what: str) -> Problem:
    hint = "its config.json and its weights do not belong together: export the model again"
    return Problem(what, where=str(folder), hint=hint)


def _rest(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Reads the weights that are not packed, in the types of a model."""
    try:
        rest = load_file(folder / REST)
    except (OSError, SafetensorError) as error:
        what = f"the weights that are not packed cannot be read: {error}"
        raise Problem(what, where=str(folder / REST), hint="export the model again") from error
    state = model.state_dict()
    for name, tensor in rest.items():
        if name in state and tensor.shape != state[name].shape:
            found, wanted = list(tensor.shape), list(state[name].shape)
            raise _another(folder, f"{REST} has {name} as {found}, not {wanted}")
    types = {name: state[name].dtype if name in state else tensor.dtype for name, tensor in rest.items()}
    return {name: tensor.to(types[name], copy=True) for name, tensor in rest.items()}  # none stays mapped


def _skeleton(folder: Path) -> nn.Module:
    """Returns the model of a folder's config with whatever memory holds for weights, which costs nothing until read."""
    with models.reading("config", str(folder)):
        config = transformers.AutoConfig.from_pretrained(folder)
    with no_init_weights():
        model = getattr(transformers, models.family(config).MODEL).from_config(config)
    model.tie_weights()
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model


def _fill(model: nn.Module, rest: Mapping[str, Tensor], layers: Iterable[str], folder: Path) -> None:
    """Loads what is not packed, and checks that nothing is left but the packed layers and what is tied to others."""
    state = model.state_dict()
    filled = {state[name].data_ptr() for name in rest.keys() & state.keys()}
    report = model.load_state_dict(rest, strict=False, assign=True)
    model.tie_weights(missing_keys=set(report.missing_keys))  # what the file has twice is not tied
    own = tuple(f"{name}." for name in layers)
    lacking = [n for n in report.missing_keys if not n.startswith(own) and state[n].data_ptr() not in filled]
    if lacking or report.unexpected_keys:
        what = f"{REST} lacks {', '.join(lacking[:3])}" if lacking else f"{REST} has {report.unexpected_keys[0]}"
        raise Problem(what, where=str(folder), hint="export the model again")
