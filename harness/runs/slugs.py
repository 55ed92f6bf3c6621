"""The readable part of a result's folder, `t5-small.sparsegpt.s75.squarehead.seed0`, from what its key holds anyway."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from harness import rooms
from harness.runs.keys import Stage
from harness.sources import Source

LONGEST = 100


def slug(name: str, options: Mapping[str, Any], parent: Stage | Source | None) -> str:
    """Returns the slug of a stage.

    Args:
        name: The stage: prepare, prune, pretrain, tune, quantize or evaluate.
        options: Its options.
        parent: What its model comes from; None for a tiny model, which is built.
    """
    if name == "prepare":
        parts = [_short(options["model"] if parent is None else parent.name), *_names(options["data"])]
    elif name == "prune":
        parts = [_model(parent), *_names(options["solver"] or options["criterion"]), _zeros(options)]
    elif name == "pretrain":
        parts = [_slug(parent), "pretrained"]
    elif name == "tune":
        ramp = [*_names(options["ramp"]), _zeros(options["prune"])] if options.get("ramp") else []
        method = [name for name in _names(options["method"]) if name != "masked"]
        parts = [_slug(parent), *ramp, *method, "+".join(_names(options["loss"])), f"seed{options['seed']}"]
    elif name == "quantize":
        activations = "" if options["activations"] == "none" else "a8"
        parts = [_slug(parent), *_names(options["rounding"]), f"w{options['bits']}{activations}"]
    elif name == "measure":
        parts = [_slug(parent), *_names(options["engine"])]
    else:
        parts = [_slug(parent), *_names(options["metric"])]
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", ".".join(parts))[:LONGEST].rstrip(".")


def _slug(parent: Stage | Source) -> str:
    return parent.slug if isinstance(parent, Stage) else _short(parent.name)


def _model(parent: Stage | Source) -> str:
    """Returns the model that a stage's weights began as."""
    while isinstance(parent, Stage):
        if "model" in parent.options:
            return _short(parent.options["model"])
        parent = parent.parents.get("model") or parent.sources["model"]
    return _short(parent.name)


def _short(model: str) -> str:
    """Returns `t5-small` for `google/t5-small@main` and for a folder of that name, `tiny-t5` for `tiny/t5`."""
    if model.startswith("tiny/"):
        return model.replace("/", "-")
    return model.rstrip("/").rpartition("/")[2].partition("@")[0] or "model"


@functools.cache
def _names(text: str) -> tuple[str, ...]:
    return tuple(rooms.parse(term.rpartition("*")[2]).name for term in rooms.terms(text))


def _zeros(options: Mapping[str, Any]) -> str:
    """Returns `s75` for a sparsity of 0.75, `2of4` for a pattern that keeps 2 of 4."""
    pattern = rooms.parse(options["pattern"]).options
    if {"n", "m"} <= pattern.keys():
        return f"{pattern['n']}of{pattern['m']}"
    return f"s{100 * options['sparsity']:.6g}"
