"""A measurement as a table: an engine a row, medians with their quartiles, and what a reader must know beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.inference.baseline import DENSE
from harness.inference.left_out import sentence
from harness.inference.measure import hardware
from harness.inference.native import NATIVE

GB = 1e9
MIB = 2**20


def table(said: Mapping[str, Any]) -> str:
    """Returns what `measure` returned as Markdown."""
    setting = said["setting"]
    columns = dict(_columns(said))
    lines = [
        f"{_conditions(said)}. {hardware(said['machine'])}. {setting['repeats']} rounds, interleaved: "
        f"median (quartiles); speed-ups are over {said['against']}, of the same round; own dense is the same engine "
        "with format=dense.",
        "",
        f"| engine | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
    ]
    for name, engine in said["engines"].items():
        cells = ["failed"] if "failed" in engine else [cell(engine) for cell in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells + [''] * (len(columns) - len(cells)))} |")
    lines += ["", _notes(said)]
    return "\n".join(lines) + "\n"


def _columns(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "tokens/s", lambda e: _spread(e["tokens_per_second"], "{:.1f}")
    yield "speed-up", lambda e: _spread(e["speedup"], "{:.2f}")
    engines = [engine for engine in said["engines"].values() if "failed" not in engine]
    if said["torch"] != said["against"]:
        yield "over torch dense", lambda e: _spread(e["speedup_torch"], "{:.2f}")
    if any("speedup_own" in engine for engine in engines):
        yield "over own dense", lambda e: _spread(e["speedup_own"], "{:.2f}") if "speedup_own" in e else ""
    yield "first token, ms", lambda e: _spread(e["first_token_ms"], "{:.1f}")
    yield "its speed-up", lambda e: _spread(e["first_token_speedup"], "{:.2f}")
    if all("prefill_tokens_per_second" in engine for engine in engines):
        yield "prompt tokens/s", lambda e: _spread(e["prefill_tokens_per_second"], "{:.0f}")
    if all("encoder_share" in engine for engine in engines):
        yield "encoder's share", lambda e: _spread(e["encoder_share"], "{:.0%}")
    if said["window"]:
        yield "of the window's time", lambda e: _spread(e["share_of_window"], "{:.1%}")
    yield "MiB a step", lambda e: "" if e["alone"] else f"{sum(e['bytes_read_by_a_step'].values()) / MIB:.1f}"
    yield "of the bound", _share
    yield "MiB held", lambda e: "" if e["alone"] else f"{e['bytes_in_memory'] / MIB:.1f}"
    yield "same tokens", lambda e: "all" if e["agreement"]["greedy_equal"] else f"{e['agreement']['same_choice']:.1%}"
    yield "logit error", lambda e: f"{e['agreement']['logit_error']:.1g}"
    yield "own error (bound)", lambda e: "{own_error:.1g} ({bound:.1g})".format(**e["agreement"])


def _share(engine: Mapping[str, Any]) -> str:
    """Returns how near an engine is to the bound of reading, and whether what it reads fits in the last cache."""
    if "share_of_bound" not in engine:
        return ""
    return f"{engine['share_of_bound']:.0%}" + (", in cache" if engine["fits_cache"] else "")


def _notes(said: Mapping[str, Any]) -> str:
    machine = said["machine"]
    notes = [
        "Same tokens: whether greedy generation is that of the dense float32 weights, else the share of its steps that "
        "choose alike; the error is the largest, in standard deviations of the logits, all roundings included. Own "
        "error is over the engine's own weights dense in float32: the rounding of activations alone, beside its bound."
    ]
    failed = {name: engine["failed"] for name, engine in said["engines"].items() if "failed" in engine}
    notes += [f"{name} failed: {why.removesuffix('.')}." for name, why in failed.items()]
    if peers := [name for name, engine in said["engines"].items() if engine["alone"] and name not in failed]:
        what = "In a process of its own, its speed-ups over the median of the rounds here, with which it shares none"
        notes.append(f"{what}: {', '.join(peers)}.")
    if window := said["window"]:
        what = f"Of the window's time: the encoder and {said['setting']['tokens']} tokens, over {window:g} s of sound"
        notes.append(
            f"{what}; it hears noise and stops at no end token, so this is no real-time factor of a transcript."
        )
    for name, engine in said["engines"].items():
        if packed := engine.get("formats"):
            notes.append(f"{name}: " + ", ".join(f"{count} matrices {form}" for form, count in packed.items()) + ".")
        if why := _by_layer(engine):
            notes.append(f"{name} decodes layer by layer, not in one native call: {why}.")
    if machine["gpu"] and said["against"] == DENSE:
        notes.append("The baseline computes in float32; on a GPU, dense models are run in 16 bits.")
    if left := said.get("left_out"):
        notes.append(sentence(left))
    if machine["bandwidth"]:
        notes.append(
            f"The bound is reading a step's weights and cache at {machine['bandwidth'] / GB:.1f} GB/s, measured here "
            f"beyond a last cache of {machine['last_cache'] / MIB:.0f} MiB, with the mean cache of all steps; what "
            "fits there (in cache) is read faster, and its share of the bound flattered."
        )
    notes.append(
        f"Theoretical only: {said['theoretical_flop_ratio']:.2f} times fewer products with weights than dense, "
        "the output layer included."
    )
    notes.append(f"Load average before: {machine['load_before']:.1f}; preempted {machine['preemptions']} times.")
    return " ".join(notes)


def _by_layer(engine: Mapping[str, Any]) -> str | None:
    """Returns why an engine with packed weights decoded most steps by Python; None where it did not."""
    calls = dict(engine.get("calls", {}))
    native, rest = calls.pop(NATIVE, 0), sum(calls.values())
    return engine.get("not_native") or (max(calls, key=calls.get) if rest > native else None)


def _conditions(said: Mapping[str, Any]) -> str:
    setting = said["setting"]
    given = f"a window of {said['window']:g} s of noise" if said["window"] else f"prompt of {setting['prompt']} tokens"
    return f"Batch {setting['batch']}, {given}, {setting['tokens']} generated"


def _spread(value: Mapping[str, Any], form: str) -> str:
    median, low, high = (form.format(value[key]) for key in ("median", "q25", "q75"))
    return median if low == high else f"{median} ({low} to {high})"


def loaded(forms: Sequence[Mapping[str, Any]]) -> str:
    """Returns what `loading` returned of one model as Markdown."""
    lines = ["| form | MiB on disk | MiB in memory | load, s |", "| --- | ---: | ---: | ---: |"]
    for form in forms:
        disk, memory = (form[key] / MIB for key in ("bytes_on_disk", "bytes_in_memory"))
        name = f"{form['format']} {form['precision']}" + (", int8 head" if form.get("head") == "int8" else "")
        lines.append(f"| {name} | {disk:.1f} | {memory:.1f} | {form['load_seconds']:.2f} |")
    return "\n".join([*lines, "", "Loading is the median of three, from the system's cache of files."]) + "\n"
