"""How fast a linear layer multiplies with packed weights, beside torch and our dense kernels (`harness bench linear`).

All contenders of a case (a shape, a sparsity, a batch, a number of threads, a build of the kernels) run in one process,
interleaved round by round, each round beginning with another. Each has as many copies of its weights as it takes that
twice the last cache is read before a copy is used again, so that weights come from memory as they do between the layers
of a model, while programs and page tables stay as warm as they are there. (To read so much between products instead
would also make the interpreter cold: 0.3 ms more for each product, whatever its weights.) A plain reading of as many
bytes as the dense fp32 weights have is one of the contenders: its speed is the bandwidth under the same conditions. A
product during which the system gave a processor to something else is measured again, up to a number of rounds. Reported
are medians, with the smallest and largest.

The byte bound of a format is how much faster than our dense fp32 kernel it would be if both only waited for memory:
bytes of the dense weights over bytes of the packed. `share` is how much of it was reached. `of_reading` is the speed at
which a product got through its weights over that of the plain reading. "int8 x 8 bits" are int8 weights with
activations of 8 bits, "int8" those with activations of 14.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import rooms
from harness.bench import measure
from harness.bench import record as kept
from harness.problems import Problem, unknown

SHAPES = ("4096x4096", "11008x4096", "4096x11008")
"""Rows x columns: attention and the two sizes of the feed-forward layers of LLaMA-7B."""
SPARSITIES = ("0.5", "0.6", "0.7", "0.75", "0.8", "0.9", "8:16", "4:16")
SLOTS = rooms.ROOMS["format"].method("slot").constants["SLOTS"]
FORMATS = ("dense", "bitmask", *(f"slot:slots={slots}" for slots in SLOTS), "index")
PRECISIONS = ("fp32", "bf16", "int8")
BASE, OWN = "torch fp32", "dense fp32"
PATIENCE = 3
"""How many times the rounds asked for there may be, until every contender has so many without an interruption."""
FEWEST = 3
"""With fewer products without an interruption all of them count."""
LAST_CACHE = 32 << 20
"""Bytes, where the system does not say."""


@dataclass(frozen=True)
class Case:
    """What is multiplied, and how.

    Attributes:
        shape: "rows x columns" of the matrix.
        sparsity: A fraction of zeros or an N:M pattern.
        batch: Rows of activations.
        threads: Of torch and of the kernels.
        build: Of the kernels, "avx512", "avx2" or "portable".
    """

    shape: str
    sparsity: str
    batch: int
    threads: int
    build: str

    def __str__(self) -> str:
        return f"{self.shape}, {self.sparsity}, batch {self.batch}, {self.threads} threads, {self.build}"


def run(case: Case, formats: Sequence[str], precisions: Sequence[str], repeats: int) -> dict[str, Any]:
    """Times all contenders of a case.

    Args:
        case: What is multiplied.
        formats: Ours, with options or without; dense is always among them.
        precisions: Of ours.
        repeats: Rounds.

    Returns:
        The case, the bandwidth in GB/s, a row for each contender, and why others did not run.

    Raises:
        Problem: A shape that cannot be read, a build that this processor does not run.
    """
    import torch

    from harness.bench import products
    from harness.inference.kernels import isa

    rows, columns = dimensions(case.shape)
    threads = torch.get_num_threads()
    with isa.limit(case.build), torch.inference_mode():
        torch.set_num_threads(case.threads)
        try:
            weight = products.matrix(rows, columns, case.sparsity)
            x = torch.randn(case.batch, columns, generator=torch.Generator().manual_seed(1))
            names = list(dict.fromkeys(["dense", *formats]))
            kinds = list(dict.fromkeys(["fp32", *precisions]))
            found = [*products.peers(weight, x), *products.ours(weight, x, names, kinds)]
            absent = [each for each in found if isinstance(each, str)]
            contenders = [each for each in found if not isinstance(each, str)]
            contenders.append(products.read(4 * weight.numel(), case.threads))
            copies = -(-2 * last_cache() // sum(each.bytes for each in contenders))
            times = _rounds([[each.copy() for _ in range(copies)] for each in contenders], repeats)
        finally:
            torch.set_num_threads(threads)
    speeds = [contenders[-1].bytes / seconds / 1e9 for seconds in times.pop()]
    sizes = [(each.name, each.bytes) for each in contenders[:-1]]
    bandwidth = measure.spread(speeds)
    said = compared(sizes, times, bandwidth["median"], BASE, OWN)
    return {**asdict(case), "bandwidth": bandwidth, "copies": copies, "rows": said, "absent": absent}


def dimensions(text: str) -> tuple[int, int]:
    """Returns the rows and columns of "ROWSxCOLUMNS".

    Raises:
        Problem: It cannot be read.
    """
    try:
        rows, columns = (int(part) for part in text.split("x"))
    except ValueError:
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise Problem(f"cannot read the shape {text!r}", hint="write ROWSxCOLUMNS, as in 4096x11008")
    return rows, columns


def check_sparsity(text: str) -> None:
    """Checks that zeros can be had: a fraction below 1, or a pattern.

    Raises:
        Problem: They cannot.
    """
    if ":" in text:
        rooms.resolve("pattern", text)
        return
    try:
        fits = 0 <= float(text) < 1
    except ValueError:
        fits = False
    if not fits:
        raise Problem(f"cannot read the sparsity {text!r}", hint="write a fraction from 0 to below 1, or N:M, as 2:4")


def _rounds(runs: Sequence[Sequence[Callable[[], Any]]], repeats: int) -> list[list[float]]:
    """Returns the seconds of each contender's products; `runs` are those over each of its copies."""
    copies = len(runs[0])
    alone: list[list[float]] = [[] for _ in runs]
    every: list[list[float]] = [[] for _ in runs]
    for turn in range(-copies, PATIENCE * repeats):  # the first round over every copy warms up
        for step in range(len(runs)):
            lane = (turn + step) % len(runs)
            product = runs[lane][turn % copies]
            before, begin = _interruptions(), time.perf_counter()
            product()
            end, after = time.perf_counter(), _interruptions()
            if turn >= 0:
                every[lane].append(end - begin)
                alone[lane] += [end - begin] if before == after else []
        if turn >= 0 and min(map(len, alone)) >= repeats:
            break
    return [clean if len(clean) >= FEWEST else each for clean, each in zip(alone, every, strict=True)]


def _interruptions() -> int:
    """Returns how often the system took a processor from a thread of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def last_cache() -> int:
    """Returns the bytes of the processor's last cache, 32 MiB where the system says less or nothing."""
    from harness.inference import roofline

    return max(LAST_CACHE, roofline.cache_bytes())


def compared(
    sizes: Sequence[tuple[str, int]], times: Sequence[Sequence[float]], bandwidth: float, torch: str, dense: str
) -> list[dict[str, Any]]:
    """Returns a row for each contender.

    Args:
        sizes: The name of each, and the bytes of its weights.
        times: The seconds of its products.
        bandwidth: Of the memory, in GB/s.
        torch: The contender that `over_torch` is over.
        dense: The contender that `over_dense` and `share`, of the byte bound, are over.
    """
    spreads = {name: measure.spread(seconds) for (name, _), seconds in zip(sizes, times, strict=True)}
    stored = dict(sizes)
    base, own = spreads[torch]["median"], spreads[dense]["median"]
    return [
        {
            "name": name,
            "bytes": size,
            "products": len(seconds),
            "seconds": spreads[name],
            "gb_per_second": size / spreads[name]["median"] / 1e9,
            "over_torch": base / spreads[name]["median"],
            "over_dense": own / spreads[name]["median"],
            "share": own / spreads[name]["median"] * size / stored[dense],
            "of_reading": size / spreads[name]["median"] / 1e9 / bandwidth,
        }
        for (name, size), seconds in zip(sizes, times, strict=True)
    ]


def record(cases: list[dict[str, Any]], repeats: int) -> dict[str, Any]:
    """Returns what is kept of a benchmark, ready for JSON."""
    return kept.record("linear", repeats=repeats, read_between=2 * last_cache(), cases=cases)


def table(said: dict[str, Any]) -> str:
    """Returns a record as Markdown."""
    machine = said["environment"]
    lines = [
        f"One linear layer, {said['repeats']} rounds, interleaved, weights out of cache "
        f"(at least {said['read_between'] >> 20} MiB read before they are used again). "
        f"{machine['cpu']}, {machine['cores']} cores."
    ]
    for case in said["cases"]:
        where = Case(**{field: case[field] for field in Case.__dataclass_fields__})
        lines += section(str(where), case, BASE, OWN)
    return "\n".join(lines) + "\n"


def section(where: str, case: dict[str, Any], torch: str, dense: str) -> list[str]:
    """Returns the Markdown lines of a case: what it is, then its rows as `compared` makes them over two contenders."""
    speed = case["bandwidth"]
    return [
        "",
        f"**{where}.** Reading: {speed['median']:.1f} GB/s ({speed['min']:.1f} to {speed['max']:.1f}).",
        "",
        f"| | ms | smallest to largest | MiB | GB/s | x {torch} | x {dense} | of byte bound | of reading |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(f"| {' | '.join(_cells(row))} |" for row in case["rows"]),
        *("" if not case["absent"] else f"\nNot run: {'; '.join(case['absent'])}.").splitlines(),
    ]


def _cells(row: dict[str, Any]) -> Iterator[str]:
    seconds = row["seconds"]
    yield row["name"]
    yield f"{seconds['median'] * 1e3:.4g}"
    yield f"{seconds['min'] * 1e3:.4g} to {seconds['max'] * 1e3:.4g}"
    yield f"{row['bytes'] / 2**20:.1f}"
    yield f"{row['gb_per_second']:.1f}"
    yield f"{row['over_torch']:.2f}"
    yield f"{row['over_dense']:.2f}"
    yield f"{row['share']:.0%}"
    yield f"{row['of_reading']:.0%}"


def command(
    *,
    shapes: Sequence[str] = SHAPES,
    sparsities: Sequence[str] = SPARSITIES,
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (),
    builds: Sequence[str] = (),
    formats: Sequence[str] = FORMATS,
    precisions: Sequence[str] = PRECISIONS,
    repeats: int = 15,
    out: Path,
) -> None:
    """Benchmarks one linear layer: runs every case, tells of each, writes the record and prints the table.

    Args:
        shapes: "ROWSxCOLUMNS".
        sparsities: Fractions of zeros or N:M patterns.
        batches: Rows of activations.
        threads: Numbers of threads; all that torch takes by default.
        builds: Of the kernels; the best that the processor runs by default.
        formats: Of the room, with options or without.
        precisions: Of our kernels.
        repeats: Rounds.
        out: The record; its table goes beside it.

    Raises:
        Problem: Something is wrong, before anything runs.
    """
    import torch
    from rich.console import Console
    from rich.markdown import Markdown

    from harness.inference.formats import PRECISIONS as KNOWN
    from harness.inference.kernels import build, isa

    if reason := build.reason():
        raise Problem("our kernels cannot be timed", hint=reason)
    names = [str(rooms.resolve("format", name)) for name in formats]
    for shape in shapes:
        dimensions(shape)
    for sparsity in sparsities:
        check_sparsity(sparsity)
    for precision in precisions:
        if precision not in KNOWN:
            raise unknown("precision", precision, KNOWN)
    for name in builds:
        with isa.limit(name):
            pass
    axes = (shapes, sparsities, batches, threads or [torch.get_num_threads()], builds or [isa.best()])
    console, cases = Console(highlight=False), []
    for values in itertools.product(*axes):
        case = Case(*values)
        begin = time.perf_counter()
        cases.append(run(case, names, precisions, repeats))
        console.print(f"{case}: {time.perf_counter() - begin:.0f} s", style="dim", markup=False)
    said = record(cases, repeats)
    console.print(Markdown(table(said)))
    console.print(*kept.write(said, table(said), out), sep="\n", markup=False)
