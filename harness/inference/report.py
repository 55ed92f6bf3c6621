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
        f"{_conditions(setting)}. {hardware(said['machine'])}. {setting['repeats']} rounds, interleaved: "
        f"median (quartiles); speed-ups are over {said['against']}, of the same round.",
        "",
        f"| engine | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
    ]
    for name, engine in said["engines"].items():
        lines.append(f"| {name} | {' | '.join(cell(engine) for cell in columns.values())} |")
    lines += ["", _notes(said)]
    return "\n".join(lines) + "\n"


def _columns(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "tokens/s", lambda e: _spread(e["tokens_per_second"], "{:.1f}")
    yield "speed-up", lambda e: _spread(e["speedup"], "{:.2f}")
    yield "first token, ms", lambda e: _spread(e["first_token_ms"], "{:.1f}")
    yield "its speed-up", lambda e: _spread(e["first_token_speedup"], "{:.2f}")
    engines = said["engines"].values()
    if all("prefill_tokens_per_second" in engine for engine in engines):
        yield "prompt tokens/s", lambda e: _spread(e["prefill_tokens_per_second"], "{:.0f}")
    if all("encoder_share" in engine for engine in engines):
        yield "encoder's share", lambda e: _spread(e["encoder_share"], "{:.0%}")
    if all("real_time_factor" in engine for engine in engines):
        yield "real-time factor", lambda e: _spread(e["real_time_factor"], "{:.3f}")
    yield "MiB a step", lambda e: "" if e["alone"] else f"{sum(e['bytes_read_by_a_step'].values()) / MIB:.1f}"
    yield "of the bound", lambda e: f"{e['share_of_bound']:.0%}" if "share_of_bound" in e else ""
    yield "MiB held", lambda e: "" if e["alone"] else f"{e['bytes_in_memory'] / MIB:.1f}"
    yield "same tokens", lambda e: "all" if e["agreement"]["greedy_equal"] else f"{e['agreement']['same_choice']:.1%}"
    yield "logit error", lambda e: f"{e['agreement']['logit_error']:.1g}"


def _notes(said: Mapping[str, Any]) -> str:
    machine = said["machine"]
    notes = [
        "Same tokens: whether greedy generation is that of the dense float32 weights, else the share of its steps that "
        "choose alike; the error is the largest, in standard deviations of the logits."
    ]
    if peers := [name for name, engine in said["engines"].items() if engine["alone"]]:
        notes.append(f"In a process of its own, not interleaved: {', '.join(peers)}.")
    for name, engine in said["engines"].items():
        if why := _by_layer(engine):
            notes.append(f"{name} decodes layer by layer, not in one native call: {why}.")
    if machine["gpu"] and said["against"] == DENSE:
        notes.append("The baseline computes in float32; on a GPU, dense models are run in 16 bits.")
    if left := said.get("left_out"):
        notes.append(sentence(left))
    if machine["bandwidth"]:
        notes.append(
            f"The bound is reading a step's weights and cache at {machine['bandwidth'] / GB:.1f} GB/s, measured here "
            f"beyond a last cache of {machine['last_cache'] / MIB:.0f} MiB; weights that fit there may pass it."
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


def _conditions(setting: Mapping[str, Any]) -> str:
    return f"Batch {setting['batch']}, prompt of {setting['prompt']} tokens, {setting['tokens']} generated"


def _spread(value: Mapping[str, Any], form: str) -> str:
    median, low, high = (form.format(value[key]) for key in ("median", "q25", "q75"))
    return median if low == high else f"{median} ({low} to {high})"


def loaded(forms: Sequence[Mapping[str, Any]]) -> str:
    """Returns what `loading` returned as Markdown."""
    lines = ["| form | MiB on disk | MiB in memory | load, s |", "| --- | ---: | ---: | ---: |"]
    for form in forms:
        disk, memory = (form[key] / MIB for key in ("bytes_on_disk", "bytes_in_memory"))
        lines.append(
            f"| {form['format']} {form['precision']} | {disk:.1f} | {memory:.1f} | {form['load_seconds']:.2f} |"
        )
    return "\n".join([*lines, "", "Loading is the median of three, from the system's cache of files."]) + "\n"
