"""A model written in the form that something else runs: packed, plain, or as an ONNX graph.

    hf-dense    a folder of transformers, the zeros in it like any weight
    onnx        one decode step as a graph: tokens, mask and cache in, logits and cache out
    bitmask, slot, index, nm:n=2,m=4, dense      prunable linears packed in one of our formats
    auto        each of them in the format that should multiply it fastest on this processor

A packed folder holds `packed.safetensors` (the linears; if asked for, the output layer in dense int8 and so the
embeddings tied to it), `rest.safetensors` (all other weights, each once), config and processor of transformers. Every
form has an `export.json` beside it (`exported`): form, precision, what is lost of a quantised model whose inputs are
rounded (`inference.left_out`), and the sums of its files. A quantised model is packed to int8 with the codes and scales
that it has; where int8 cannot hold them, it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import exported, rooms
from harness.exported import AUTO, GRAPH, PACKED, PLAIN, REST
from harness.problems import Problem, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.inference.formats import Packed

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
KEEP = "keep"
HEADS = (KEEP, "int8")
"""What becomes of the output layer of a packed model."""


def command(model: str, out: Path, format: str, precision: str, group: int = 0, head: str = KEEP) -> None:
    """Checks everything, writes the folder, and says how large it is.

    Raises:
        Problem: Something is wrong; nothing has been written then.
    """
    from harness import oneoff, output

    output.quiet()
    from harness import models, show
    from harness.inference.left_out import left_out, sentence
    from harness.inference.weights import dense_weights, found

    check(format, precision, group, head)
    folder = oneoff.check_folder(out)
    source = found(model)
    left = left_out(source)
    with oneoff.becoming(folder) as (result, _):
        export(dense_weights(source), models.load_processor(source), result, format, precision, left, group, head)
    size = sum(path.stat().st_size for path in folder.iterdir())
    show.console.print(f"{folder}: {format} {precision}, {size / 2**20:.1f} MiB", highlight=False, soft_wrap=True)
    if left:
        show.console.print(sentence(left), highlight=False, soft_wrap=True)


def check(format: str, precision: str, group: int = 0, head: str = KEEP) -> None:
    """Checks a form by its name.

    Raises:
        Problem: There is none of this name, or it has no such precision, no groups or no such output layer.
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
        name = rooms.resolve("format", format).name
    if head not in HEADS:
        raise unknown("output layer", head, HEADS)
    if head != KEEP and name in (PLAIN, GRAPH):
        hint = "packed formats round: --format bitmask"
        raise Problem(f"{name} keeps its output layer", where=f"--head {head}", hint=hint)
    if group and precision != "int8":
        raise Problem(f"{precision} weights have no scales", where=f"--group {group}", hint="write --precision int8")
    if group and name != AUTO and not rooms.ROOMS["format"].method(name).constants.get("GROUPED"):
        raise Problem(
            f"format {name!r} has one scale a row", where=f"--group {group}", hint="dense and bitmask take groups"
        )


def export(
    model: nn.Module,
    processor: Any,
    folder: Path,
    format: str,
    precision: str = "fp32",
    left_out: Mapping[str, int] | None = None,
    group: int = 0,
    head: str = KEEP,
) -> None:
    """Writes a model into an empty folder.

    Args:
        model: Dense float32 weights with their zeros, on the CPU; with the grids that they lie on (`inference.grids`).
        processor: Its tokenizer or processor.
        folder: Where it goes.
        format: A form: hf-dense, onnx, or a packed format with its options.
        precision: What packed values are rounded to.
        left_out: What the folder says that its weights come without, from `inference.left_out`.
        group: With int8, how many columns share a scale; 0 is the whole row, or what the model was quantised with.
        head: keep, or int8: what the output layer is rounded to in a packed folder, with the embeddings tied to it.

    Raises:
        Problem: The form is unknown, or packages that it needs are not installed; or a layer cannot be packed so.
    """
    from harness import models

    check(format, precision, group, head)
    if format == PLAIN:
        models.save(model, processor, folder)
    elif format == GRAPH:
        from harness.inference import onnx

        _describe(model, processor, folder)
        onnx.export(model, folder)
    else:
        _export_packed(model, processor, folder, format, precision, group, head)
    named = format if format in (PLAIN, GRAPH, AUTO) else str(rooms.resolve("format", format))
    rounded = head if head != KEEP else None
    said = {"format": named, "precision": precision, "group": group, "head": rounded, "left_out": left_out}
    exported.describe(folder, {name: value for name, value in said.items() if value})


def _export_packed(
    model: nn.Module, processor: Any, folder: Path, format: str, precision: str, group: int, head: str
) -> None:
    from safetensors.torch import save_file

    from harness.inference import storage, swap

    output = None if head == KEEP else _output(model, head)
    _describe(model, processor, folder)
    names = swap.prunable(model)
    packed = {name: _packed(name, model.get_submodule(name), format, precision, group) for name in names}
    if output is not None:
        packed[output] = _packed(output, model.get_submodule(output), "dense", head, 0)
    storage.save(folder / PACKED, packed)
    weights = {model.get_submodule(name).weight.data_ptr() for name in packed}
    rest = {name: _short(tensor) for name, tensor in _once(model.state_dict()) if tensor.data_ptr() not in weights}
    save_file(rest, folder / REST, {"format": "pt"})


def _output(model: nn.Module, head: str) -> str:
    """Returns the name of the output layer, which is to be rounded.

    Raises:
        Problem: There is no linear one, or an embedding tied to it does more than `embedding.factor` knows.
    """
    from harness.inference import swap
    from harness.inference.embedding import tied

    output = swap.head(model)
    if output is None:
        raise Problem(f"{type(model).__name__} has no linear output layer", where=f"--head {head}", hint="keep it")
    for name, factor in tied(model, output).items():
        if factor is None:
            what = f"{name}, tied to the output layer, does more than to look up rows and to scale them"
            raise Problem(what, where=f"--head {head}", hint="keep it")
    return output


def _short(tensor: Tensor) -> Tensor:
    """Returns a float32 tensor in bfloat16 if that is the same numbers, as where it was published so; else as it is."""
    import torch

    if tensor.dtype == torch.float32 and torch.equal((short := tensor.bfloat16()).float(), tensor):
        return short.contiguous()
    return tensor.contiguous()


def _packed(name: str, linear: nn.Module, format: str, precision: str, group: int) -> Packed:
    """Packs a layer.

    Raises:
        Problem: The format cannot hold its weights; it names the layer.
    """
    from harness.inference import grids
    from harness.inference.choice import pack

    grid = grids.joined([linear]) if precision == "int8" else None
    try:
        return pack(linear.weight, format, precision, group=group, grid=grid)
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
