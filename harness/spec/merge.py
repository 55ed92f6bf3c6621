"""One entry's data at one scale: the scale laid over the top level, then the command line's `--set` over both.

Sections and evaluations merge key by key, a grid axis by axis; a list is replaced whole. A grid axis or an evaluation
that is set to null is removed. `steps` replaces `epochs` from below, `solver` replaces `criterion`, and the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.problems import Problem, unknown
from harness.spec import yaml_lines
from harness.spec.axes import label_of, settings_of
from harness.spec.listing import SCALES, scales_of
from harness.spec.sections import ALTERNATIVES, SINGLE, lay, unknown_setting

_DEPTH = {**dict.fromkeys(SINGLE, 2), "paper": 2, "grid": 2, "evaluate": 3, "reference": 3}
"""How many keys a dotted name has in each part of an entry; an axis is one key, `grid` > `prune.sparsity`."""
_PLAIN = ("chain", "baselines", "seeds")
"""What `--set` may set besides settings and axes."""


@dataclass(frozen=True)
class Merged:
    """An entry's data at one scale with the place of every dotted path, `file:line` or `--set name=value`."""

    data: dict[str, Any]
    places: dict[str, str]

    def where(self, dotted: str) -> str:
        """Returns the place of a dotted path, or of the nearest thing around it."""
        return self.places[yaml_lines.around(dotted, self.places)]


def keys_of(dotted: str) -> tuple[str, ...]:
    """Splits a dotted name into the keys it leads through: `evaluate.bleu.limit`, `grid` > `prune.sparsity`."""
    head = dotted.partition(".")[0]
    return tuple(dotted.split(".", _DEPTH.get(head, 2) - 1))


def at_scale(document: yaml_lines.Document, scale: str) -> Merged:
    """Returns a document's data at a scale.

    Raises:
        Problem: The document has no such scale, or names one that there cannot be, or sets a key twice.
    """
    top, *_ = scales = scales_of(document.data)
    scaled = document.data.get("scales")
    if scaled is not None and not isinstance(scaled, dict):
        raise Problem("scales is a mapping of scale to settings", where=document.where("scales"))
    for name in scales[1:]:
        if name not in SCALES:
            raise unknown("scale", name, SCALES, document.where(f"scales.{name}"))
        if name == top:
            raise Problem(f"the top level of this entry is its scale {top!r}", where=document.where(f"scales.{name}"))
    if scale not in scales:
        raise unknown("scale", scale, scales, document.where("scales"))
    places = {dotted: f"{document.path}:{line}" for dotted, line in document.lines.items()}
    data = _nested({key: value for key, value in document.data.items() if key != "scales"}, places)
    if scale == top:
        return Merged(data, places)
    prefix = f"scales.{scale}"
    own = {dotted[len(prefix) + 1 :]: place for dotted, place in places.items() if dotted.startswith(prefix + ".")}
    layer = {} if scaled[scale] is None else scaled[scale]
    if not isinstance(layer, dict):
        raise Problem(f"{prefix} is a mapping of settings", where=places[prefix])
    return Merged(_merge(data, _nested(layer, own)), {**places, **own})


def _nested(data: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    """Puts dotted keys where they belong: `prune.sparsity: 0.5` is `prune: {sparsity: 0.5}`."""
    tree = {key: value for key, value in data.items() if len(keys_of(key)) == 1}
    for dotted in data.keys() - tree.keys():
        *inner, last = keys_of(dotted)
        node = tree
        for depth, key in enumerate(inner, 1):
            if not isinstance(node.get(key), dict | None):
                raise Problem(f"{'.'.join(inner[:depth])} is a mapping", where=places[dotted])
            node[key] = dict(node.get(key) or {})
            node = node[key]
        if last in node:
            raise Problem(f"key {dotted!r} stands twice, nested and dotted", where=places[dotted])
        node[last] = data[dotted]
    return tree


def _merge(base: dict[str, Any], layer: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    changes = {}
    for key, value in layer.items():
        below = base.get(key)
        both = isinstance(below, dict) and isinstance(value, dict) and path[:1] != ("grid",)
        changes[key] = _merge(below, value, (*path, key)) if both else value
    merged = lay(base, changes)
    return {k: v for k, v in merged.items() if v is not None or path not in (("grid",), ("evaluate",))}


def override(merged: Merged, texts: Iterable[str]) -> Merged:
    """Applies `name=value` texts; they win over everything in the file, the cases too.

    A name that is an axis of the grid picks from it: a list's values are replaced, a mapping's labels are chosen.

    Raises:
        Problem: The name is no setting, the label is none of the axis, or an axis decides over the setting.
    """
    for text in texts:
        where = f"--set {text}"
        name, equals, written = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise Problem(f"cannot read {text!r}", where=where, hint="write --set tune.steps=10")
        value = yaml_lines.value(written, where)
        grid = merged.data.get("grid") or {}
        if name in grid:
            changes = {"grid": {name: _pick(name, grid[name], value, where)}}
            name = f"grid.{name}"
        else:
            _check_settable(name, merged.data, where)
            changes = _nested({name: [value] if name in _PLAIN[1:] and not isinstance(value, list) else value}, {})
        data = _merge(merged.data, changes)
        if isinstance(data.get("cases"), list):
            data["cases"] = [_without(case, name) for case in data["cases"]]
        below = {dotted: place for dotted, place in merged.places.items() if not dotted.startswith(f"{name}.")}
        merged = Merged(data, below | {name: where})
    return merged


def _pick(axis: str, points: Any, value: Any, where: str) -> Any:
    wanted = value if isinstance(value, list) else [value]
    if not isinstance(points, dict):
        return wanted
    labels = [label_of(one) for one in wanted]
    for label in labels:
        if label not in points:
            raise unknown(f"label of the axis {axis!r}", label, points, where)
    return {label: points[label] for label in labels}


def _check_settable(name: str, data: dict[str, Any], where: str) -> None:
    grid = data.get("grid") or {}
    evaluations = data.get("evaluate") or [str(data.get("task")).partition(":")[0]]
    if problem := unknown_setting(name, evaluations, (*_PLAIN, *grid)):
        raise problem.at(where)
    for axis, points in grid.items():
        decided = [axis, *(n for p in (points.values() if isinstance(points, dict) else ()) for n in settings_of(p))]
        if any(_covers(name, one) for one in decided):
            hint = f"choose from the axis instead: --set {axis}=..."
            raise Problem(f"{name} follows from the axis {axis!r}", where=where, hint=hint)


def _covers(name: str, other: str) -> bool:
    """Says whether to set `name` leaves a setting of `other` without meaning."""
    section, _, key = name.partition(".")
    alternatives = (f"{section}.{each}" for each in ALTERNATIVES.get(key, ()))
    return other in (name, *alternatives) or other.startswith(f"{name}.")


def _without(case: Any, name: str) -> Any:
    """Returns a case without what it says of a setting that the command line decides."""
    if not isinstance(case, dict):
        return case
    kept = {key: value for key, value in settings_of(case.get("set")).items() if not _covers(name, key)}
    return {**case, "set": kept}
