"""How large packed files are and how long they take to load, beside dense 16-bit files (`harness bench load`).

The model's prunable linears get zeros by magnitude, in each row the same fraction. Then it is written once dense in
fp16, as transformers writes it, and once in each packed form; every round loads each of them, beginning with another,
in one process: once when the system has been told to forget its files, so that they come from the disk, and once from
the system's cache. A load ends with a model that can be called, all of whose weights have been read once: what
maps a file into memory and reads nothing yet has not loaded it.

Bytes are of the safetensors files. `linears` are those of the prunable linears alone: what is not packed, the embedding
first of all, is a third of a small model and little of a large one.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bench import measure
from harness.bench.record import record, write
from harness.problems import Problem

if TYPE_CHECKING:
    from torch import nn

BASE = "dense fp16"
FORMS = ("bitmask:int8", "bitmask:fp16", "slot:int8")


@dataclass(frozen=True)
class Form:
    """A model as it was written.

    Attributes:
        name: "dense fp16" or "bitmask int8".
        bytes: Of its weights on the disk.
        linears: Those of the prunable linears.
        folder: Where it is.
        load: Reads it.
    """

    name: str
    bytes: int
    linears: int
    folder: Path
    load: Callable[[], nn.Module]


def parsed(text: str) -> tuple[str, str]:
    """Returns format and precision of a packed form written as "bitmask:int8" or "slot:slots=8:int8".

    Raises:
        Problem: It is not so written, or there is no such format or precision.
    """
    from harness import export
    from harness.exported import GRAPH, PLAIN

    format, _, precision = text.rpartition(":")
    if not format:
        raise Problem(f"cannot read the form {text!r}", hint="write FORMAT:PRECISION, as in bitmask:int8")
    export.check(format, precision)
    if format in (PLAIN, GRAPH):
        raise Problem(f"{format} is not a packed form", hint="dense fp16 is always among the forms")
    return format, precision


def run(model: nn.Module, processor: Any, forms: Sequence[tuple[str, str]], repeats: int) -> list[dict[str, Any]]:
    """Writes a model in every form and loads each in turn.

    Args:
        model: Dense float32 weights with their zeros.
        processor: Its processor.
        forms: Format and precision of each packed one.
        repeats: Rounds.

    Returns:
        Of each form its bytes, the seconds of a load from cache and disk, and how many times smaller and faster than
        dense fp16 it is.
    """
    with tempfile.TemporaryDirectory() as scratch:
        written = [_dense(model, processor, Path(scratch) / "dense")]
        for turn, (format, precision) in enumerate(forms):
            written.append(_packed(model, processor, Path(scratch) / f"form{turn}", format, precision))
        cached: list[list[float]] = [[] for _ in written]
        disk: list[list[float]] = [[] for _ in written]
        for turn in range(repeats):
            for step in range(len(written)):
                lane = (turn + step) % len(written)
                _forget(written[lane].folder)
                disk[lane].append(_seconds(written[lane]))
                cached[lane].append(_seconds(written[lane]))
    return [
        {
            "name": form.name,
            "bytes": form.bytes,
            "linears": form.linears,
            "smaller": written[0].bytes / form.bytes,
            "linears_smaller": written[0].linears / form.linears,
            "cached": _load(cached, lane),
            "disk": _load(disk, lane),
        }
        for lane, form in enumerate(written)
    ]


def _load(seconds: Sequence[Sequence[float]], lane: int) -> dict[str, Any]:
    """Returns the seconds of a form's loads, and how many times faster than those of dense fp16 they are."""
    spreads = [measure.spread(each) for each in seconds]
    return {"seconds": spreads[lane], "faster": spreads[0]["median"] / spreads[lane]["median"]}


def _seconds(form: Form) -> float:
    begin = time.perf_counter()
    _touch(form.load())
    return time.perf_counter() - begin


def _forget(folder: Path) -> None:
    """Has the system drop a folder's files from its cache; they are written to the disk first.

    What is still mapped is not dropped, so a model that only a cycle of references keeps alive goes before.
    """
    gc.collect()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _dense(model: nn.Module, processor: Any, folder: Path) -> Form:
    import copy

    from harness import models
    from harness.inference import swap

    half = copy.deepcopy(model).half()
    models.save(half, processor, folder)
    linears = sum(half.get_submodule(name).weight.nbytes for name in swap.prunable(half))
    return Form(BASE, _size(folder), linears, folder, lambda: models.load(folder, "float16"))


def _packed(model: nn.Module, processor: Any, folder: Path, format: str, precision: str) -> Form:
    from harness import export
    from harness.exported import PACKED
    from harness.inference import weights

    folder.mkdir()
    export.export(model, processor, folder, format, precision)
    linears = (folder / PACKED).stat().st_size
    return Form(f"{format} {precision}", _size(folder), linears, folder, lambda: weights.load(folder))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _touch(model: nn.Module) -> None:
    """Reads a byte of every page of a model's weights."""
    import torch

    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.numel():
            tensor.detach().reshape(-1).view(torch.uint8)[::4096].sum()


def table(said: dict[str, Any]) -> str:
    """Returns a record as Markdown."""
    machine = said["environment"]
    return "\n".join(
        [
            f"Loading {said['model']} with {said['sparsity']:.0%} of the prunable weights zero, "
            f"{said['repeats']} rounds, interleaved. "
            f"{machine['cpu']}, {machine['cores']} cores.",
            "",
            "| | MiB | x smaller | linears, MiB | x smaller | from cache, ms | x faster | from disk, ms | x faster |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(_line(row) for row in said["rows"]),
            "",
        ]
    )


def _line(row: dict[str, Any]) -> str:
    loads = " | ".join(_cell(row[kind]) for kind in ("cached", "disk"))
    return (
        f"| {row['name']} | {row['bytes'] / 2**20:.1f} | {row['smaller']:.2f} "
        f"| {row['linears'] / 2**20:.1f} | {row['linears_smaller']:.2f} | {loads} |"
    )


def _cell(load: dict[str, Any]) -> str:
    median, least, most = (load["seconds"][name] * 1e3 for name in ("median", "min", "max"))
    return f"{median:.0f} ({least:.0f} to {most:.0f}) | {load['faster']:.2f}"


def command(model: str, forms: Sequence[str] = FORMS, sparsity: float = 0.75, *, repeats: int = 9, out: Path) -> None:
    """Benchmarks loading: writes and loads every form, writes the record and prints the table.

    Args:
        model: A model folder, a hub name, or a mirror's.
        forms: Packed ones, "bitmask:int8".
        sparsity: Fraction of zeros.
        repeats: Rounds.
        out: The record; its table goes beside it.

    Raises:
        Problem: Something is wrong, before anything runs.
    """
    chosen = [parsed(form) for form in forms]

    from harness import models, oneoff, show
    from harness.inference.command import sparser
    from harness.inference.weights import dense_weights, found

    oneoff.quiet()
    source = found(model)
    zeroed = sparser(dense_weights(source), sparsity)
    rows = run(zeroed, models.load_processor(source), chosen, repeats)
    said = record("load", model=source.identity, sparsity=sparsity, repeats=repeats, rows=rows)
    paths = write(said, table(said), out)
    show.console.print(table(said), markup=False, highlight=False, soft_wrap=True)
    show.console.print(*paths, sep="\n", markup=False)
