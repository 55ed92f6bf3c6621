"""How fast engines generate with one model's weights: interleaved with two dense baselines, in one process.

A round runs every engine once, each round beginning with another one; what disturbs the machine disturbs them alike.
Reported are medians with the quartiles, and of speed-ups the median of the rounds' own ratios:

    first = seconds until the first token       step = seconds between two tokens       speedup = another's step / step

    speedup         over `against`, by default the dense model as the same hardware runs it: float32 on a CPU, 16 bits
                    on a GPU (`baseline`)
    speedup_torch   over PyTorch's dense model, where `against` is another
    speedup_own     over the same engine with dense weights of the same precision: what sparsity alone gives

Another program's runtime is measured before, in a process of its own (`alone`); its ratios are over the medians of the
others. One that fails there says why in its row.

Nothing is reported of an engine whose logits are not the dense model's (`agreement`), or, where it rounds, lie further
from those of its own weights than its rounding allows (`rounding`). Beside the times stand what a step must read and
how fast this machine reads (`roofline`), and a ratio of operations that is no speed-up and says so.
"""

from __future__ import annotations

import contextlib
import copy
import os
import resource
import statistics
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from torch import nn

from harness import rooms
from harness.inference import alone, native, roofline, rounding, swap
from harness.inference.agreement import Reference, agreement, check, exact, reference
from harness.inference.baseline import DENSE, baseline, own_dense, torch_dense
from harness.inference.greedy import Run, generate
from harness.inference.kernels.linear import PackedLinear
from harness.inference.prompts import prompts, seconds_heard
from harness.problems import Problem
from harness.runs.job import Progress
from harness.tasks._lengths import positions
from harness.tracking.environment import environment


@dataclass(frozen=True)
class Setting:
    """What is generated, and how often.

    Attributes:
        batch: Rows at once.
        prompt: Tokens that are read before the first is generated; a model that hears hears its window.
        tokens: Tokens that are generated.
        repeats: Rounds that count.
        warmup: Rounds before them that do not.
        threads: Threads of the CPU; None for as many as torch takes.
        seed: Draws the prompt.
    """

    batch: int = 1
    prompt: int = 128
    tokens: int = 32
    repeats: int = 7
    warmup: int = 1
    threads: int | None = None
    seed: int = 0


def check_length(config: Any, setting: Setting) -> None:
    """Makes sure that a model's decoder reads as many tokens as a setting asks for.

    Raises:
        Problem: It does not.
    """
    whole = setting.tokens + (0 if config.is_encoder_decoder else setting.prompt)
    if whole > (most := positions(config)):
        what = f"{whole} tokens are asked for, and the model's decoder reads up to {most}"
        raise Problem(what, hint="fewer tokens" if config.is_encoder_decoder else "a shorter prompt, or fewer tokens")


def check_memory(config: Any, setting: Setting) -> None:
    """Makes sure that the logits of a setting fit this machine: every step's are kept, to compare the engines.

    Raises:
        Problem: They are larger than its memory.
    """
    needs, there = 4 * setting.batch * setting.tokens * config.vocab_size, psutil.virtual_memory().total
    if needs > there:
        what = f"batch {setting.batch} has {needs / 1e9:,.1f} GB of logits, and this machine {there / 1e9:,.1f} GB"
        raise Problem(what, hint="a smaller batch, or fewer tokens")


def measure(
    model: nn.Module, engines: Sequence[str], setting: Setting, against: str | None = None
) -> Generator[Progress, None, dict[str, Any]]:
    """Measures engines on a model's weights, reporting after every generation.

    Args:
        model: Dense float32 weights with their zeros, on the CPU, in eval mode; they are not changed.
        engines: Choices of the room `engine`.
        setting: What is generated.
        against: The engine that speed-ups are over; None for the `baseline` of these engines.

    Returns:
        `setting`, `against`, `torch`, `machine`, the ratio of operations, `window` (the seconds that a model which
        hears is given, else None), and under `engines` a report of each by its choice: of those asked for, and of the
        dense ones that they are compared with. A peer that failed has `failed`, why, in the place of its times.

    Raises:
        Problem: An engine cannot run here, or computes something else than the weights say; or more is asked for than
            the model reads or this machine holds.
    """
    against = baseline(engines) if against is None else against
    torch_name, names = compared(engines, against)
    where = device_of(names)
    check_length(model.config, setting)
    check_memory(model.config, setting)
    with threads(setting.threads) as count:
        model = model.to(where)
        inputs = prompts(model, setting.batch, setting.prompt, seed=setting.seed)
        lanes, runs, said = ready(model, names, inputs, setting, count)
        if why := said[names[0]].get("failed"):
            raise Problem(f"what speed-ups are over cannot run: {why}", where=names[0])
        load, before = os.getloadavg()[0], _preemptions()
        rounds = setting.warmup + setting.repeats
        for done, (name, run) in enumerate(race(lanes, inputs, setting, rounds), 1):
            runs[name].append(run)
            yield Progress(done, rounds * len(lanes), {"tokens_per_second": setting.batch / run.step}, "generation")
        preempted = _preemptions() - before
        speed = roofline.bandwidth() if where == "cpu" else None
        counted = {name: each[setting.warmup :] for name, each in runs.items()}
        report = {name: said[name] for name in names}
        for name, each in counted.items():
            report[name] |= times(each, of_the_rounds(counted, lanes, name, names[0]), setting, model)
            for key, other in (("speedup_torch", torch_name), ("speedup_own", own_dense(name))):
                if other in counted:
                    report[name][key] = speedups(each, of_the_rounds(counted, lanes, name, other))
            if name in lanes:
                report[name] |= _inside(lanes[name], inputs, speed, each)
    here = environment()
    machine = {"cpu": here["cpu"], "gpu": here["gpu"] if where == "cuda" else None, "threads": count}
    machine |= {"bandwidth": speed, "last_cache": roofline.cache_bytes(), "load_before": load, "preemptions": preempted}
    counts = [*swap.prunable(model), *filter(None, [swap.head(model)])]
    ratio = roofline.theoretical_flop_ratio(model, counts)
    return {
        "setting": asdict(setting),
        "window": seconds_heard(model),
        "against": names[0],
        "torch": torch_name,
        "machine": machine,
        "theoretical_flop_ratio": ratio,
        "engines": report,
    }


def compared(engines: Sequence[str], against: str) -> tuple[str, list[str]]:
    """Returns PyTorch's dense engine, and all that is measured: `against` first, dense engines before what they judge.

    Raises:
        Problem: An engine is unknown.
    """
    plain = str(rooms.resolve("engine", torch_dense(against, engines)))
    wanted = [against, plain, *(each for text in engines for each in (own_dense(text), text) if each)]
    return plain, list(dict.fromkeys(str(rooms.resolve("engine", text)) for text in wanted))


def ready(
    model: nn.Module, names: Sequence[str], inputs: Mapping[str, torch.Tensor], setting: Setting, count: int
) -> tuple[dict[str, nn.Module], dict[str, list[Run]], dict[str, dict[str, Any]]]:
    """Makes the engines of a model and verifies them; peers are measured here already.

    Returns:
        The engines that are to be interleaved, the runs so far of each that runs, and of every engine whether it is
        `alone`, and its `agreement`, or why it `failed`.

    Raises:
        Problem: An engine computes something else than the weights say.
    """
    dense = reference(model, inputs, setting.tokens)
    runs: dict[str, list[Run]] = {}
    said: dict[str, dict[str, Any]] = {}
    lanes: dict[str, nn.Module] = {}
    for name in names:
        if is_peer(name):
            runs[name], said[name] = peer(model, name, inputs, setting, count, dense)
    for name in names:
        if not is_peer(name):
            lanes[name], runs[name] = prepared(model, name), []
            with _named(name):
                found = agreement(lanes[name], inputs, dense)
                plain = rooms.bind("engine", name, "exact")()
                found |= exact(found) if plain else rounding.verify(model, lanes[name], inputs, dense)
            check(name, found)
            said[name] = {"alone": False, "agreement": found}
    return lanes, {name: each for name, each in runs.items() if name in lanes or each}, said


def peer(
    model: nn.Module,
    name: str,
    inputs: Mapping[str, torch.Tensor],
    setting: Setting,
    count: int,
    dense: Reference,
) -> tuple[list[Run], dict[str, Any]]:
    """Measures another program's runtime; returns its runs and its agreement, or no run and why it `failed`."""
    try:
        if reason := rooms.bind("engine", name, "available")():
            return [], {"alone": True, "failed": reason}
        runs, found = alone.measure(model, name, setting, count, dense)
        if rooms.bind("engine", name, "exact")():
            found |= exact(found)
        else:
            bound = rounding.bound_of_16_bits(model, inputs, dense)
            found |= {"own_error": found["logit_error"], "bound": bound, "weight_error": None}
        check(name, found)
    except Exception as error:  # whatever another program raises
        said = str(error).strip().splitlines() or [""]
        return [], {"alone": True, "failed": f"{type(error).__name__}: {said[0]}".removeprefix("Problem: ")}
    return runs, {"alone": True, "agreement": found}


def hardware(machine: Mapping[str, Any]) -> str:
    """Returns what the times are of, in words: the GPU, or the processor and how many threads it had."""
    return machine["gpu"] or f"{machine['cpu']}, {machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"


def device_of(engines: Sequence[str]) -> str:
    """Returns where engines run, "cpu" or "cuda".

    Raises:
        Problem: One of them cannot run here, peers excepted; or one runs on the CPU and another on the GPU.
    """
    for name in engines:
        if is_peer(name):
            continue
        if reason := rooms.bind("engine", name, "available")():
            raise Problem(f"the engine {rooms.parse(name).name} cannot run here: {reason}", where=name)
    places = {rooms.load("engine", rooms.parse(name).name).DEVICE: name for name in engines}
    if {"cpu", "cuda"} <= places.keys():
        what = f"{places['cpu']} runs on the CPU and {places['cuda']} on the GPU"
        raise Problem(what, hint="measure them one after the other")
    return "cuda" if "cuda" in places else "cpu"


def is_peer(engine: str) -> bool:
    """Says whether an engine is another program's runtime, measured alone."""
    return rooms.ROOMS["engine"].method(rooms.parse(engine).name).constants.get("PEER", False)


def prepared(model: nn.Module, engine: str) -> nn.Module:
    """Returns what an engine makes of a copy of the model; the model itself where there is nothing to make.

    Raises:
        Problem: The engine cannot run these weights; it names the engine, and the layer where one is to blame.
    """
    if engine == DENSE:
        return model
    with _named(engine):
        return rooms.bind("engine", engine)(copy.deepcopy(model)).eval()


@contextlib.contextmanager
def _named(engine: str) -> Iterator[None]:
    """Names the engine before the place of a problem."""
    try:
        yield
    except Problem as problem:
        raise problem.at(": ".join(filter(None, (engine, problem.where)))) from problem


def race(
    lanes: Mapping[str, nn.Module], inputs: Mapping[str, torch.Tensor], setting: Setting, rounds: int
) -> Iterator[tuple[str, Run]]:
    """Yields a generation of every engine per round, each round beginning with another one."""
    names = list(lanes)
    for turn in range(rounds):
        for step in range(len(names)):
            name = names[(turn + step) % len(names)]
            yield name, generate(lanes[name], inputs, setting.tokens)


def of_the_rounds(runs: Mapping[str, Sequence[Run]], lanes: Mapping[str, Any], name: str, other: str) -> Sequence[Run]:
    """Returns the runs of another engine beside those of one: of the same rounds, or its median if they share none."""
    return runs[other] if {name, other} <= lanes.keys() else [median_run(runs[other])] * len(runs[name])


def median_run(runs: Sequence[Run]) -> Run:
    """Returns a run of the medians of some."""
    parts = {part: statistics.median(getattr(run, part) for run in runs) for part in ("encoder", "first", "rest")}
    return Run(runs[0].tokens, **parts)


def speedups(runs: Sequence[Run], others: Sequence[Run]) -> dict[str, Any]:
    """Returns how many times as fast the steps of runs are as those of others."""
    return spread([other.step / run.step for run, other in zip(runs, others, strict=True)])


def times(runs: Sequence[Run], dense: Sequence[Run], setting: Setting, model: nn.Module) -> dict[str, Any]:
    """Returns how fast an engine was, and over as many dense runs."""
    found = {
        "tokens_per_second": spread([setting.batch / run.step for run in runs]),
        "step_seconds": spread([run.step for run in runs]),
        "first_token_ms": spread([1e3 * run.first for run in runs]),
        "speedup": speedups(runs, dense),
        "first_token_speedup": spread([other.first / run.first for run, other in zip(runs, dense, strict=True)]),
        "total_speedup": spread([_total(other) / _total(run) for run, other in zip(runs, dense, strict=True)]),
    }
    if not model.config.is_encoder_decoder:
        found["prefill_tokens_per_second"] = spread([setting.batch * setting.prompt / run.first for run in runs])
        return found
    found["encoder_seconds"] = spread([run.encoder for run in runs])
    found["encoder_share"] = spread([run.encoder / _total(run) for run in runs])
    if heard := seconds_heard(model):
        found["share_of_window"] = spread([_total(run) / (heard * setting.batch) for run in runs])
    else:
        found["prefill_tokens_per_second"] = spread([setting.batch * setting.prompt / run.encoder for run in runs])
    return found


def _inside(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], speed: float | None, runs: Sequence[Run]
) -> dict[str, Any]:
    """Returns what is known of an engine that runs in this process: what it reads, and how packed weights decode."""
    found = reads(model, inputs, speed, runs)
    if any(isinstance(module, PackedLinear) for module in model.modules()):
        found |= {"calls": native.counts(model), "not_native": native.refusal(model), "formats": formats(model)}
    return found


def formats(model: nn.Module) -> dict[str, int]:
    """Returns how many packed matrices are in which format and precision, the most first; joined linears are one."""
    packed = (module for module in model.modules() if isinstance(module, PackedLinear))
    return dict(Counter(f"{each.format} {each.precision}" for each in packed).most_common())


def reads(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], speed: float | None, runs: Sequence[Run]
) -> dict[str, Any]:
    """Returns what an engine's step reads, what it holds, and the share of the bound that reading is."""
    read = roofline.read_by_a_step(model, inputs, runs[0].tokens.shape[1])
    found: dict[str, Any] = {"bytes_in_memory": roofline.in_memory(model), "bytes_read_by_a_step": read}
    found["fits_cache"] = sum(read.values()) <= roofline.cache_bytes()
    if speed:
        bound = sum(read.values()) / speed
        found["bound_tokens_per_second"] = runs[0].tokens.shape[0] / bound
        found["share_of_bound"] = bound / statistics.median(run.step for run in runs)
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns the median, the quartiles, the median's standard error by the quartiles, and the values themselves.

    s.e. = 0.93 (q75 - q25) / sqrt(n)        as of a normal distribution, unmoved by a round that was disturbed
    """
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    error = 0.93 * (high - low) / len(values) ** 0.5 if len(values) > 1 else None
    return {"median": statistics.median(values), "q25": low, "q75": high, "stderr": error, "values": list(values)}


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Lets torch and the kernels have so many threads, by default as many as they have; gives how many these are.

    Raises:
        Problem: The machine has fewer cores.
    """
    if count and count > (cores := os.cpu_count() or 1):
        raise Problem(f"{count} threads are asked for, and this machine has {cores} cores", where="threads")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield count or before
    finally:
        torch.set_num_threads(before)


def _preemptions() -> int:
    """Returns how often this process had to give a core away."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _total(run: Run) -> float:
    return run.first + run.rest
