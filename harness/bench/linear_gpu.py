"""How fast a linear layer multiplies on a GPU, packed and dense (`harness bench linear --device cuda`).

Contenders are cuBLAS in both 16-bit types, our bitmask kernels in all their precisions, torch's 2:4 where the zeros lie
so, and a plain reading (torch's sum) of as many bytes as the dense weights have: its speed is the memory's bound. They
take turns round by round, each round beginning with another. Before each product a buffer several times the last cache
is read, so that weights come from memory; while the GPU does that, the host has the time to ask for the product, which
then starts without waiting for it. CUDA events stand around the product alone. Reported are medians, with the smallest
and largest; what is launched at all costs some microseconds, in every row alike.

Every product is compared with that of the fp32 weights first. The columns are those of `harness/bench/linear.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import output
from harness.bench import linear, measure
from harness.bench.record import record, write
from harness.problems import Problem, unknown

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = ("4096x4096", "11008x4096", "4096x11008", "14336x4096", "4096x14336")
"""Rows x columns of LLaMA-7B and 8B."""
SPARSITIES = ("0.5", "0.75", "0.9", "2:4")
PRECISIONS = ("fp16", "bf16", "int8")
BASE, OWN = "cuBLAS bf16", "cuBLAS fp16"
FLUSH = 512 << 20
"""Bytes read between products, or four times the last cache where that is more: about 0.2 ms on an H100."""
WARMUP = 3
TOLERANCE = 0.02
"""Largest error of a product, over the largest entry of the fp32 weights' product."""


@dataclass(frozen=True)
class Contender:
    """A way to multiply: its name, the bytes of its weights, and the product over them."""

    name: str
    bytes: int
    product: Callable[[], Tensor]


def contenders(weight: Tensor, x: Tensor, precisions: Sequence[str]) -> Iterator[Contender | str]:
    """Yields the ways to multiply that there are here; for one that cannot, why.

    Args:
        weight: [out, in], float32, on the GPU.
        x: [batch, in], float32, on the GPU.
        precisions: Of our kernels' values.
    """
    import torch
    from torch.nn import functional as F

    from harness.inference.engines.torch_24 import is_24
    from harness.inference.engines.triton_bitmask import BitmaskLinear

    half, brain = x.half(), x.bfloat16()
    for name, given in ((OWN, half), (BASE, brain)):
        dense = weight.to(given.dtype)
        yield Contender(name, dense.nbytes, lambda dense=dense, given=given: F.linear(given, dense))
    for precision in precisions:
        layer, given = BitmaskLinear(weight, None, precision).to(weight.device), brain if precision == "bf16" else half
        yield Contender(f"bitmask {precision}", layer.bytes, lambda layer=layer, given=given: layer(given))
    if not is_24(weight):
        yield "torch 2:4: the zeros do not lie so"
        return
    try:
        packed = torch.sparse.to_sparse_semi_structured(weight.half())
        F.linear(half, packed)
    except RuntimeError as error:
        yield f"torch 2:4: {str(error).splitlines()[0].rstrip('.')}"
        return
    # half the values, and two bits of place for each
    yield Contender("torch 2:4 fp16", weight.numel() * 9 // 8, lambda: F.linear(half, packed))


def run(shape: str, sparsity: str, batch: int, precisions: Sequence[str], repeats: int) -> dict[str, Any]:
    """Times all contenders of a shape, a sparsity and a number of rows of activations.

    Returns:
        The case, the bandwidth in GB/s, a row for each contender, and why others did not run.

    Raises:
        Problem: A shape that cannot be read; a contender whose product is wrong.
    """
    import torch

    from harness.bench import products

    where, (rows, columns) = torch.device("cuda"), linear.dimensions(shape)
    weight = products.matrix(rows, columns, sparsity).to(where)
    x = torch.randn(batch, columns, generator=torch.Generator().manual_seed(1)).to(where)
    with torch.inference_mode():
        found = list(contenders(weight, x, precisions))
        lanes = [each for each in found if not isinstance(each, str)]
        wanted = x.double() @ weight.double().T
        for lane in lanes:
            check(lane, wanted)
        memory = torch.ones(rows * columns // 2, device=where)
        times = timed([*(lane.product for lane in lanes), memory.sum], repeats)
    speed = measure.spread([memory.nbytes / seconds / 1e9 for seconds in times.pop()])
    said = linear.compared([(lane.name, lane.bytes) for lane in lanes], times, speed["median"], BASE, OWN)
    absent = [each for each in found if isinstance(each, str)]
    case = {"shape": shape, "sparsity": sparsity, "batch": batch}
    return {**case, "bandwidth": speed, "rows": said, "absent": absent}


def check(contender: Contender, wanted: Tensor) -> None:
    """Compares a contender's product with the one wanted, [batch, out].

    Raises:
        Problem: They differ by more than rounding.
    """
    error = float((contender.product().double() - wanted).abs().max() / wanted.abs().max())
    if not error <= TOLERANCE:
        raise Problem(f"a product is off by {error:.1%} of the largest entry", where=contender.name)


def timed(products: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Returns the seconds of each product on the GPU, in each of the rounds."""
    import torch

    cache = torch.cuda.get_device_properties().L2_cache_size
    flush = torch.ones(max(FLUSH, 4 * cache) // 4, device="cuda")
    marks: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[] for _ in products]
    for turn in range(-WARMUP, repeats):
        for step in range(len(products)):
            lane = (turn + step) % len(products)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.sum()
            begin.record()
            products[lane]()
            end.record()
            if turn >= 0:
                marks[lane].append((begin, end))
    torch.cuda.synchronize()
    return [[begin.elapsed_time(end) / 1e3 for begin, end in each] for each in marks]


def table(said: dict[str, Any]) -> str:
    """Returns a record as Markdown."""
    machine = said["environment"]
    lines = [
        f"One linear layer on {machine['gpu']}, {said['repeats']} rounds, interleaved, weights out of cache "
        f"(at least {FLUSH >> 20} MiB read before every product)."
    ]
    for case in said["cases"]:
        lines += linear.section(f"{case['shape']}, {case['sparsity']}, batch {case['batch']}", case, BASE, OWN)
    return "\n".join(lines) + "\n"


def command(
    *,
    shapes: Sequence[str] = SHAPES,
    sparsities: Sequence[str] = SPARSITIES,
    batches: Sequence[int] = (1,),
    precisions: Sequence[str] = PRECISIONS,
    repeats: int,
    out: Path,
) -> None:
    """Benchmarks one linear layer on a GPU: runs every case, writes the record and prints the table.

    Args:
        shapes: "ROWSxCOLUMNS".
        sparsities: Fractions of zeros or N:M patterns.
        batches: Rows of activations.
        precisions: Of our kernels' values.
        repeats: Rounds.
        out: The record; its table goes beside it.

    Raises:
        Problem: Something is wrong, before anything runs; or a product is.
    """
    from rich.markdown import Markdown

    from harness.inference.engines import triton_bitmask

    for shape in shapes:
        linear.dimensions(shape)
    for sparsity in sparsities:
        linear.check_sparsity(sparsity)
    for precision in precisions:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
    if reason := triton_bitmask.available():
        raise Problem("nothing can be timed on a GPU here", hint=reason)
    cases = [run(*case, precisions, repeats) for case in itertools.product(shapes, sparsities, batches)]
    said, console = record("linear_gpu", repeats=repeats, cases=cases), output.console()
    console.print(Markdown(table(said)))
    console.print(*write(said, table(said), out), sep="\n", markup=False)
