"""A model written in the form that something else runs: packed, plain, or as an ONNX graph.

    hf-dense    a folder of transformers, the zeros in it like any weight
    onnx        one decode step as a graph: tokens, mask and cache in, logits and cache out
    bitmask, slot, index, nm:n=2,m=4, dense      prunable linears packed in one of our formats
    auto        each of them in the format that should multiply it fastest on this processor

A packed folder holds `packed.safetensors` (the linears), `rest.safetensors` (all other weights, each once), config and
processor of transformers, and `export.json`, by which `load` knows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import rooms
from harness.problems import Problem, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.inference.formats import Packed

FILE = "export.json"
PACKED = "packed.safetensors"
REST = "rest.safetensors"
PLAIN, GRAPH, AUTO = "hf-dense", "onnx", "auto"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


def command(model: str, out: Path, format: str, precision: str) -> None:
    """Checks everything, writes the folder, and says how large it is.

    Raises:
        Problem: Something is wrong; nothing has been written then.
    """
    from harness import oneoff

    oneoff.quiet()
    from harness import models, show
    from harness.inference.command import found, weights
    from harness.inference.left_out import left_out, sentence

    check(format, precision)
    folder = oneoff.check_folder(out)
    source = found(model)
    left = left_out(source)
    with oneoff.becoming(folder) as (result, _):
        export(weights(source), models.load_processor(source), result, format, precision, left)
    size = sum(path.stat().st_size for path in folder.iterdir())
    show.console.print(f"{folder}: {format} {precision}, {size / 2**20:.1f} MiB", highlight=False, soft_wrap=True)
    if left:
        show.console.print(sentence(left), highlight=False, soft_wrap=True)


def check(format: str, precision: str) -> None:
    """Checks a form by its name.

    Raises:
        Problem: There is none of this name, or it has no such precision.
    """
    name = format.partition(":")[0]
    names = (PLAIN, GRAPH, AUTO, *rooms.ROOMS["format"].names())
    if name not in names and not format[:1].isdigit():
        raise unknown("form", format, names)
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if name in (PLAIN, GRAPH, AUTO) and name != format:
        raise Problem(f"{name} has no options", where=f"--format {format}", hint=f"write {name}")
    if name in (PLAIN, GRAPH):
        if precision != "fp32":
            raise Problem(f"{name} is written in fp32", hint="packed formats round: --format bitmask --precision int8")
    elif name != AUTO:
        rooms.resolve("format", format)


def export(
    model: nn.Module,
    processor: Any,
    folder: Path,
    format: str,
    precision: str = "fp32",
    left_out: Mapping[str, int] | None = None,
) -> None:
    """Writes a model into an empty folder.

    Args:
        model: Dense float32 weights with their zeros, on the CPU.
        processor: Its tokenizer or processor.
        folder: Where it goes.
        format: A form: hf-dense, onnx, or a packed format with its options.
        precision: What packed values are rounded to.
        left_out: What a packed folder says that its weights come without, from `inference.left_out`.

    Raises:
        Problem: The form is unknown, or packages that it needs are not installed; or a layer cannot be packed so.
    """
    from harness import models

    check(format, precision)
    if format == PLAIN:
        models.save(model, processor, folder)
    elif format == GRAPH:
        from harness.inference import onnx

        _describe(model, processor, folder)
        onnx.export(model, folder)
    else:
        _export_packed(model, processor, folder, format, precision)
        said = {"format": format if format == AUTO else str(rooms.resolve("format", format)), "precision": precision}
        said |= {"left_out": left_out} if left_out else {}
        (folder / FILE).write_text(json.dumps(said, indent=1) + "\n", encoding="utf8")


def _export_packed(model: nn.Module, processor: Any, folder: Path, format: str, precision: str) -> None:
    from safetensors.torch import save_file

    from harness.inference import storage, swap

    _describe(model, processor, folder)
    names = swap.prunable(model)
    packed = {name: _packed(name, model.get_submodule(name).weight, format, precision) for name in names}
    storage.save(folder / PACKED, packed)
    weights = {f"{name}.weight" for name in names}
    rest = {name: _short(tensor) for name, tensor in _once(model.state_dict()) if name not in weights}
    save_file(rest, folder / REST, {"format": "pt"})


def _short(tensor: Tensor) -> Tensor:
    """Returns a float32 tensor in bfloat16 if that is the same numbers, as where it was published so; else as it is."""
    import torch

    if tensor.dtype == torch.float32 and torch.equal((short := tensor.bfloat16()).float(), tensor):
        return short.contiguous()
    return tensor.contiguous()


def _packed(name: str, weight: Tensor, format: str, precision: str) -> Packed:
    """Packs a layer.

    Raises:
        Problem: The format cannot hold its weights; it names the layer.
    """
    from harness.inference.choice import choose
    from harness.inference.formats import pack

    try:
        return pack(weight, choose(weight, precision) if format == AUTO else format, precision)
    except Problem as problem:
        raise problem.at(name) from problem


def _describe(model: nn.Module, processor: Any, folder: Path) -> None:
    """Writes all of a model's folder but its weights."""
    from harness import models

    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)
    known = models.family(model)
    for name, content in known.files(processor).items() if hasattr(known, "files") else ():
        (folder / name).write_text(content, encoding="utf8")


def _once(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields tensors by name, those that are tied to an earlier one left out."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if place not in seen:
            seen.add(place)
            yield name, tensor


def is_packed(folder: Path | None) -> bool:
    """Says whether a folder holds a model in one of our packed formats."""
    return folder is not None and (folder / FILE).is_file()


def described(folder: Path) -> dict[str, Any]:
    """Returns what a packed folder says of itself.

    Raises:
        Problem: It is damaged.
    """
    try:
        return dict(json.loads((folder / FILE).read_text(encoding="utf8")))
    except (ValueError, TypeError) as error:
        what = f"this description of a packed model cannot be read: {error}"
        raise Problem(what, where=str(folder / FILE), hint="export the model again") from error


def load(folder: Path, *, dense: bool = False) -> nn.Module:
    """Loads a packed model, in eval mode, on the CPU.

    Args:
        folder: What `export` wrote.
        dense: Expand the packed weights, so that every engine can have them; rounded ones stay rounded.

    Raises:
        Problem: The folder is not whole.
    """
    from torch import nn

    from harness.inference import native, storage, swap
    from harness.inference.formats import unpack
    from harness.inference.kernels.linear import PackedLinear

    model = _skeleton(folder)
    with ThreadPoolExecutor(1) as pool:  # the embedding is cast while the checksum is computed
        reading = pool.submit(_rest, folder, model)
        packed = storage.load(folder / PACKED)
        rest = reading.result()
    for name in swap.prunable(model):
        if name not in packed:
            raise Problem(f"{PACKED} lacks the layer {name}", where=str(folder), hint="export the model again")
        linear = model.get_submodule(name)
        if (found := packed[name].shape) != (wanted := tuple(linear.weight.shape)):
            raise _another(folder, f"{PACKED} has {name} as {list(found)}, not {list(wanted)}")
        if dense:
            linear.weight = nn.Parameter(unpack(packed[name]), requires_grad=False)
        else:
            swap.put(model, name, swap.weightless(PackedLinear(packed[name], rest.pop(f"{name}.bias", None))))
    _fill(model, rest, packed, folder)
    if not dense:
        native.install(model)
    return model.eval()


def _another(folder: Path, what: str) -> Problem:
    hint = "its config.json and its weights do not belong together: export the model again"
    return Problem(what, where=str(folder), hint=hint)


def _rest(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Reads the weights that are not packed, in the types of a model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

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
    import transformers
    from transformers.initialization import no_init_weights

    from harness import models

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
