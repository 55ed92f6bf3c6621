"""The weights that engines are given: of a model wherever it comes from, or read back from a packed folder."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from harness import exported, models
from harness.exported import PACKED, REST
from harness.inference import grids, mapped, native, storage, swap
from harness.inference.embedding import PackedEmbedding, as_stored, tied
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
    folder = folder_at(model)
    if exported.is_packed(folder):
        return model_source(model)
    if folder is not None:
        _check_readable(folder)
    origins = Origins()
    source = origins.model(model)
    origins.check()
    return source


def _check_readable(folder: Path) -> None:
    """Checks that a folder which is no packed model is no other kind of export that cannot be read back."""
    if exported.is_exported(folder) and exported.described(folder)["format"] == exported.GRAPH:
        raise Problem("an ONNX export is not read back", where=str(folder), hint="give the model that it was made from")
    if not exported.is_exported(folder) and (folder / PACKED).is_file():
        hint = "copy it from where it was exported to, or export the model again"
        raise Problem(f"{PACKED} is here, and {exported.FILE} is not", where=str(folder), hint=hint)


def dense_weights(source: Path | Source) -> nn.Module:
    """Returns a model's dense float32 weights, with the grids that they lie on; those of a packed folder are expanded.

    Raises:
        Problem: The folder is not whole, or not what was written.
    """
    folder = snapshot(source) if isinstance(source, Source) else source
    if exported.is_packed(folder):
        return load(folder, dense=True)
    with exported.verifying(folder) if exported.is_exported(folder) else contextlib.nullcontext():
        model = swap.bare(verified(source))
    if folder is not None and (folder / codes.FILE).is_file():
        grids.attach(model, {name: layer.grid for name, layer in codes.load(folder).items()})
    return model


def load(folder: Path, *, dense: bool = False) -> nn.Module:
    """Loads a packed model, in eval mode, on the CPU.

    Args:
        folder: What `export` wrote.
        dense: Expand the packed weights, so that every engine can have them; rounded ones stay rounded, on their grids.

    Returns:
        The model. Weights that need no other form than they are stored in stay in the files, which the system maps:
        nothing may be written into these while the model lives (`exported`). Its `tie_weights`, unless it is dense,
        changes nothing: what shares weights shares them packed, and what its file has apart stays apart.

    Raises:
        Problem: The folder is not whole, or not what was written.
    """
    with exported.verifying(folder) as (said, files):
        model = _skeleton(folder)
        state, names, output = model.state_dict(keep_vars=True), swap.prunable(model), swap.head(model)
        packed, rest = storage.load(folder / PACKED, files[PACKED]), _rest(folder, files[REST], state)
        for name in [*names, *({output} & packed.keys())]:
            if name not in packed:
                raise Problem(f"{PACKED} lacks the layer {name}", where=str(folder), hint="export the model again")
            _same_shape(folder, PACKED, name, packed[name].shape, state[f"{name}.weight"])
            _check_form(folder, said, name, packed[name], output)
        if dense:
            for name, layer in packed.items():
                rest[f"{name}.weight"], model.get_submodule(name).grid = unpack(layer), _grid(layer)
            _fill(model, state, rest, (), folder)
        else:
            last = {} if output is None else _output(model, output, packed, rest)
            for name in names:
                swap.put(model, name, swap.weightless(PackedLinear(packed[name], rest.pop(f"{name}.bias", None))))
            _fill(model, state, rest, {*names, *last}, folder)
            for name, layer in last.items():
                swap.put(model, name, swap.weightless(layer))
            native.install(model)
            model.tie_weights = _tie_nothing
    return model.eval()


def _tie_nothing(*_: Any, **__: Any) -> None:
    """Stands for a model's `tie_weights`, which looks for weights that are packed."""


def _output(
    model: nn.Module, output: str, packed: Mapping[str, Packed], rest: dict[str, Tensor]
) -> dict[str, nn.Module]:
    """Takes the output layer out of what is filled in as float32, where its weights stay as they are stored.

    They do so in int8, and in bfloat16 if the file has one matrix for the layer and for all embeddings that the config
    ties to it, and `embedding.factor` knows these. Others become float32: those published in fp16, which is how they
    are written, and bfloat16 of a T5 v1.1, whose config ties what its file has apart.

    Returns:
        By name, the layer and the embeddings that share its weights; nothing where they become float32.
    """
    shared = tied(model, output)
    own = [name for name in (output, *shared) if f"{name}.weight" in rest]
    if output in packed:
        held, shared = packed[output], {} if own else shared
    elif len(own) == 1 and rest[f"{own[0]}.weight"].dtype == torch.bfloat16 and None not in shared.values():
        held = as_stored(rest.pop(f"{own[0]}.weight"))
    else:
        return {}
    layer = PackedLinear(held, rest.pop(f"{output}.bias", None))
    return {output: layer, **{name: PackedEmbedding(layer, factor) for name, factor in shared.items()}}


def _check_form(folder: Path, said: Mapping[str, Any], name: str, packed: Packed, output: str | None) -> None:
    """Checks that a layer is in the format and precision that its folder names; the output layer is dense int8."""
    wanted = ("dense", "int8") if name == output else (said["format"], said["precision"])
    if packed.precision != wanted[1] or wanted[0] not in (packed.format, exported.AUTO):
        found = f"{PACKED} has {name} in {packed.format} {packed.precision}"
        what = f"{found}, where {exported.FILE} says {' '.join(wanted)}"
        raise Problem(what, where=str(folder), hint="export the model again")


def _same_shape(folder: Path, file: str, name: str, found: Sequence[int], wanted: Tensor) -> None:
    if tuple(found) != tuple(wanted.shape):
        what = f"{file} has {name} as {list(found)}, not {list(wanted.shape)}"
        hint = "its config.json and its weights do not belong together: export the model again"
        raise Problem(what, where=str(folder), hint=hint)


def _grid(packed: Packed) -> Grid | None:
    """Returns the grid that the expanded weights lie on; None where they are no integers."""
    if (scales := packed.tensors.get("scales")) is None:
        return None
    return Grid(scales, torch.zeros_like(scales), 8, group_size(packed.shape[1], scales.shape[1]))


def _rest(folder: Path, content: mmap.mmap | bytes, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the weights that are not packed, in the types that they are stored in."""
    try:
        _, rest = mapped.read(content)
    except ValueError as error:
        what = f"the weights that are not packed cannot be read: {error}"
        raise Problem(what, where=str(folder / REST), hint="export the model again") from error
    for name in rest.keys() & state.keys():
        _same_shape(folder, REST, name, rest[name].shape, state[name])
    return rest


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


def _fill(
    model: nn.Module, state: Mapping[str, Tensor], rest: Mapping[str, Tensor], layers: Container[str], folder: Path
) -> None:
    """Puts what is not packed into a model, in the types of its state, and checks that nothing is left but the packed
    layers and what is tied to others."""
    places = {name for name in state if name.rpartition(".")[0] not in layers}
    for name in rest.keys() & places:
        tensor = rest[name].to(state[name].dtype)
        parameter = isinstance(state[name], nn.Parameter)
        swap.put(model, name, nn.Parameter(tensor, state[name].requires_grad) if parameter else tensor)
    absent = places - rest.keys()
    if absent:  # what the file has twice is not tied; what is packed is missing, too, and holds nothing to compare with
        model.tie_weights(missing_keys=state.keys() - rest.keys())
    filled = {state[name].data_ptr() for name in rest.keys() & places}
    lacking = sorted(name for name in absent if state[name].data_ptr() not in filled)
    left = sorted(rest.keys() - places)
    if lacking or left:
        what = f"{REST} lacks {', '.join(lacking[:3])}" if lacking else f"{REST} has {left[0]}"
        raise Problem(what, where=str(folder), hint="export the model again")
