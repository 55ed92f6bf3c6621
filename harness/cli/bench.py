"""Benchmarks: whole jobs, steps and layers, each beside others' ways to do the same, in one run."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import Results, results_folder
from harness.device import KINDS
from harness.problems import Problem, unknown

app = typer.Typer(no_args_is_help=True, help="Measures time and memory, beside other programs, in one run.")


@app.command(name="prune")
def prune(
    model: Annotated[str, typer.Argument(help="A model folder, a hub name, or a mirror's.")],
    calibration: Annotated[Path, typer.Option(help="A JSON Lines file that every program reads.")],
    sparsity: Annotated[float, typer.Option(help="Fraction of zeros.")] = 0.5,
    methods: Annotated[str, typer.Option(help="Criteria and solvers, with commas between.")] = "wanda,sparsegpt",
    pattern: Annotated[str | None, typer.Option(help="Of our own; unstructured.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Calibration examples; all of the file.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    against: Annotated[
        list[str] | None,
        typer.Option(help="NAME=COMMAND or METHOD/NAME=COMMAND over {model} {calibration} {sparsity} {samples} {out}."),
    ] = None,
    scaling: Annotated[bool, typer.Option(help="Also run ours at three depths and three numbers of samples.")] = False,
    out: Annotated[Path | None, typer.Option(help="The record; results/bench/prune.<model>.json by default.")] = None,
    results: Results = None,
):
    """Times pruning, ours and other programs' commands: interleaved, one at a time, whole processes."""
    from harness.bench import prune as benchmark

    benchmark.command(
        model,
        calibration,
        _listed(methods, "--methods"),
        sparsity,
        samples=samples,
        pattern=pattern,
        repeats=repeats,
        against=against or (),
        grow=scaling,
        out=_place(out, results, f"prune.{Path(model).name}"),
    )


@app.command()
def tune(
    workloads: Annotated[list[str], typer.Argument(help="Models (folder, hub name, mirror's), or llama-7b-block.")],
    methods: Annotated[
        str, typer.Option(help="Methods of the room, peft (its LoRA), naive (a masked product by autograd), dense.")
    ] = "lora,peft,naive,lors,spp,sparse_peft,masked,dense,seft",
    tokens: Annotated[int, typer.Option(min=1, help="Length of the one sequence of a batch.")] = 512,
    rank: Annotated[int, typer.Option(min=1, help="Of every low-rank method.")] = 16,
    sparsity: Annotated[float, typer.Option(min=0, max=0.999, help="Fraction of zeros.")] = 0.5,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    precision: Annotated[str, typer.Option(help="Arithmetic of the forward pass: fp32, bf16.")] = "fp32",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile every block before it is timed.")] = False,
    out: Annotated[Path | None, typer.Option(help="The record; results/bench/tune.<workload>.json by default.")] = None,
    results: Results = None,
):
    """Times steps of fine-tuning by method: time, peak memory, bytes kept for the backward, FLOPs; interleaved."""
    from harness.bench import tune as benchmark

    place = _place(out, results, f"tune.{Path(workloads[0]).name}")
    names = _listed(methods, "--methods")
    given = {"tokens": tokens, "rank": rank, "sparsity": sparsity, "precision": precision, "compiled": compiled}
    benchmark.command(workloads, names, repeats=repeats, out=place, **given)


@app.command()
def linear(
    shapes: Annotated[str | None, typer.Option(help="ROWSxCOLUMNS, with commas between.")] = None,
    sparsities: Annotated[str | None, typer.Option(help="Fractions of zeros, or N:M.")] = None,
    batches: Annotated[str, typer.Option(help="Rows of activations.")] = "1",
    threads: Annotated[str, typer.Option(help="Numbers of threads; all that torch takes by default.")] = "",
    builds: Annotated[str, typer.Option(help="avx512, avx2, portable; the best by default.")] = "",
    formats: Annotated[str | None, typer.Option(help="Of the room, with options or without.")] = None,
    precisions: Annotated[str | None, typer.Option(help="fp32, bf16, fp16, int8.")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda: cuBLAS, the bitmask in Triton, torch's 2:4.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 15,
    out: Annotated[
        Path | None, typer.Option(help="The record; results/bench/linear.json or linear_gpu.json by default.")
    ] = None,
    results: Results = None,
):
    """Times one linear layer with packed weights beside torch's dense and sparse products, and the memory's bound."""
    if device not in KINDS:
        raise unknown("device", device, KINDS, where="--device")
    given = {"shapes": shapes, "sparsities": sparsities, "precisions": precisions}
    host = {"formats": formats, "builds": builds, "threads": threads}
    if device == "cuda":
        from harness.bench import linear_gpu as benchmark

        if named := [f"--{name}" for name, text in host.items() if text]:
            raise Problem(f"{', '.join(named)}: of the kernels for the CPU, not of --device cuda")
    else:
        from harness.bench import linear as benchmark

        given |= host
    asked = {name: _listed(text, f"--{name}") for name, text in given.items() if text}
    if "threads" in asked:
        asked["threads"] = _numbers(threads, "--threads", os.cpu_count() or 1)
    benchmark.command(
        **asked,
        batches=_numbers(batches, "--batches"),
        repeats=repeats,
        out=_place(out, results, benchmark.__name__.rpartition(".")[2]),
    )


@app.command()
def load(
    model: Annotated[str, typer.Argument(help="A model folder, a hub name, or a mirror's.")],
    forms: Annotated[str | None, typer.Option(help="FORMAT:PRECISION, with commas between.")] = None,
    sparsity: Annotated[float, typer.Option(min=0, max=0.999, help="Fraction of zeros.")] = 0.75,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 9,
    out: Annotated[Path | None, typer.Option(help="The record; results/bench/load.<model>.json by default.")] = None,
    results: Results = None,
):
    """Times loading a model's packed files, and weighs them, beside dense 16-bit files; interleaved."""
    from harness.bench import load as benchmark

    place = _place(out, results, f"load.{Path(model).name}")
    given = {"forms": _listed(forms, "--forms")} if forms else {}
    benchmark.command(model, sparsity=sparsity, repeats=repeats, out=place, **given)


def _listed(text: str, where: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise Problem("nothing is asked for", where=where, hint="write one or more, with commas between")
    return found


def _numbers(text: str, where: str, most: float = math.inf) -> list[int]:
    """Reads whole numbers from 1 to `most`, with commas between."""
    listed = _listed(text, where)
    if wrong := [part for part in listed if not part.isdecimal() or not 1 <= int(part) <= most]:
        bounds = "1 or more" if most == math.inf else f"from 1 to {most}"
        raise Problem(f"{wrong[0]!r} is no number {bounds}", where=where)
    return [int(part) for part in listed]


def _place(out: Path | None, results: Path | None, name: str) -> Path:
    """Returns where a record goes, which it can: that is seen before anything is timed."""
    place = out or results_folder(results) / "bench" / f"{name}.json"
    inside = next(each for each in place.absolute().parents if each.exists())
    if place.is_dir() or not inside.is_dir():
        what = "this is a folder" if place.is_dir() else f"{inside} is no folder"
        raise Problem(what, where=str(place), hint="--out names a file, as in results/bench/mine.json")
    return place
