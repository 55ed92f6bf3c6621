"""How large packed files are and how long they take to load, beside dense 16-bit files (`harness bench load`).

The model's prunable linears get zeros by magnitude, in each row the same fraction. Then it is written once dense in
fp16, as transformers writes it, and once in each packed form; every round loads each of them, beginning with another,
in one process: once when the system has been told to forget its files, so that they come from the disk, and once from
the system's cache. A load ends with a model that can be called, all of whose weights have been read once: what
maps a file into memory and reads nothing yet has not loaded it.

Bytes are of the safetensors files. `linears` are those of the prunable linears alone: what is not packed, the embedding
first of all, is a third of a small model and little of a large one. It is bfloat16 where it was published so;
with `+head` it is rounded to int8, as the output layer is that it is tied to.
"""

from __future__ import annotations

import gc
import os
import tempfile
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
FORMS = ("bitmask:int8", "bitmask:int8+head", "bitmask:fp16", "slot:int8")


@dataclass(frozen=True)
class Form:
    """A model as it was written.

    Attributes:
        name: "dense fp16", "bitmask int8" or "bitmask int8, int8 head".
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


def parsed(text: str) -> tuple[str, str, str]:
    """Returns format, precision and head of a packed form: "bitmask:int8", "slot:slots=8:int8", "bitmask:int8+head".

    Raises:
        Problem: It is not so written, or there is no such format or precision.
    """
    from harness import export
    from harness.exported import GRAPH, PLAIN

    form, _, head = text.partition("+")
    format, _, precision = form.rpartition(":")
    if not format or text not in (form, f"{form}+head"):
        raise Problem(f"cannot read the form {text!r}", hint="write FORMAT:PRECISION, as in bitmask:int8")
    export.check(format, precision)
    if format in (PLAIN, GRAPH):
        raise Problem(f"{format} is not a packed form", hint="dense fp16 is always among the forms")
    return format, precision, "int8" if head else export.KEEP


def run(model: nn.Module, processor: Any, forms: Sequence[tuple[str, str, str]], repeats: int) -> list[dict[str, Any]]:
    """Writes a model in every form and loads each in turn.

    Args:
        model: Dense float32 weights with their zeros.
        processor: Its processor.
        forms: Format, precision and head of each packed one.
        repeats: Rounds.

    Returns:
        Of each form its bytes, the seconds of a load from cache and disk, and how many times smaller and faster than
        dense fp16 it is.
    """
    from harness.inference.loading import timed

    with tempfile.TemporaryDirectory() as scratch:
        written = [_dense(model, processor, Path(scratch) / "dense")]
        for turn, form in enumerate(forms):
            written.append(_packed(model, processor, Path(scratch) / f"form{turn}", *form))
        cached: list[list[float]] = [[] for _ in written]
        disk: list[list[float]] = [[] for _ in written]
        for turn in range(repeats):
            for step in range(len(written)):
                lane = (turn + step) % len(written)
                _forget(written[lane].folder)
                disk[lane].append(timed(written[lane].load)[1])
                cached[lane].append(timed(written[lane].load)[1])
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
    from harness.inference.loading import size

    half = copy.deepcopy(model).half()
    models.save(half, processor, folder)
    linears = sum(half.get_submodule(name).weight.nbytes for name in swap.prunable(half))
    return Form(BASE, size(folder), linears, folder, lambda: models.load(folder, "float16"))


def _packed(model: nn.Module, processor: Any, folder: Path, format: str, precision: str, head: str) -> Form:
    from harness import export
    from harness.exported import PACKED
    from harness.inference import storage, swap, weights
    from harness.inference.loading import size

    folder.mkdir()
    export.export(model, processor, folder, format, precision, head=head)
    packed = storage.load(folder / PACKED)
    linears = sum(packed[name].bytes for name in swap.prunable(model))
    name = f"{format} {precision}" + (f", {head} head" if head != export.KEEP else "")
    return Form(name, size(folder), linears, folder, lambda: weights.load(folder))


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

    from harness import models, output, show
    from harness.inference.command import sparser
    from harness.inference.weights import dense_weights, found

    output.quiet()
    source = found(model)
    zeroed = sparser(dense_weights(source), sparsity)
    rows = run(zeroed, models.load_processor(source), chosen, repeats)
    said = record("load", model=source.identity, sparsity=sparsity, repeats=repeats, rows=rows)
    paths = write(said, table(said), out)
    show.console.print(table(said), markup=False, highlight=False, soft_wrap=True)
    show.console.print(*paths, sep="\n", markup=False)
