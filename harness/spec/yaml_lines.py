"""YAML with the line of every key and item, so that each error can point at its place.

Two things differ from PyYAML's own loader. Scalars are read by YAML 1.2's core schema: `1e-4` is a number, `on` and
`no` are words, and the pattern `2:4` is not the number 124. Keys are kept as the text that was written, and a key that
stands twice in one mapping is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.problems import Problem

_Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_DEEPEST, _MOST = 50, 200_000
"""Levels and values of a file; anchors within anchors make many of few."""
_BOOLEAN = {"true": True, "false": False}


class _Reader(_Base):
    """PyYAML's composer with the implicit types of YAML 1.2."""

    yaml_implicit_resolvers: dict = {}


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    _first_characters = ["" if c == "\0" else c for c in _first]
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first_characters)


@dataclass(frozen=True)
class Document:
    """A YAML file: its name as errors show it, its data, and the line (from 1) of every dotted path in it.

    A list's item is a path's last part by its number: `seeds.0`.
    """

    path: str
    data: dict[str, Any]
    lines: dict[str, int]

    def where(self, dotted: str = "") -> str:
        """Returns `file:line` of a dotted path, or of the nearest thing around it that the file has."""
        return f"{self.path}:{self.lines[around(dotted, self.lines)]}"


def around(dotted: str, places: dict[str, Any]) -> str:
    """Returns the longest beginning of a dotted path that is a key of `places`; the empty path always is one."""
    while dotted and dotted not in places:
        dotted = dotted.rpartition(".")[0]
    return dotted


def load(path: Path) -> Document:
    """Reads a file whose top is a mapping.

    Raises:
        Problem: It cannot be read, is no YAML, is empty, repeats a key, or holds something other than plain data.
    """
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"cannot be read: {error}", where=str(path)) from error
    lines: dict[str, int] = {"": 1}
    data = _construct(_compose(text, str(path)), str(path), "", lines, ())
    if not isinstance(data, dict):
        raise Problem("an entry is a mapping of keys", where=f"{path}:1", hint="begin with 'title: ...'")
    return Document(str(path), data, lines)


def value(text: str, where: str) -> Any:
    """Reads one value as YAML would: `10`, `1e-4`, `[1, 2]`, `squarehead:eps=1e-9`, `null`."""
    return _construct(_compose(text, where), where, "", {}, ())


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        return _Reader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, (error.context, error.problem)))
        raise Problem(f"no YAML: {said}", where=f"{name}:{mark.line + 1}" if mark else name) from error
    except yaml.YAMLError as error:
        raise Problem(f"no YAML: {error}", where=name) from error
    except RecursionError as error:
        raise Problem(f"nested more than {_DEEPEST} deep", where=name) from error


def _construct(node: yaml.Node | None, name: str, dotted: str, lines: dict[str, int], above: tuple) -> Any:
    if node is None:
        return None
    where = f"{name}:{node.start_mark.line + 1}"
    if node in above:
        raise Problem("an anchor that holds itself", where=where)
    if len(lines) > _MOST:
        raise Problem(f"its anchors make more than {_MOST:,} values of it", where=where)
    if len(above) > _DEEPEST:
        raise Problem(f"nested more than {_DEEPEST} deep", where=where)
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, name, dotted, lines, (*above, node))
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        items = []
        for i, item in enumerate(node.value):
            here = _join(dotted, str(i))
            lines[here] = item.start_mark.line + 1
            items.append(_construct(item, name, here, lines, (*above, node)))
        return items
    return _scalar(node, where)


def _mapping(node: yaml.MappingNode, name: str, dotted: str, lines: dict[str, int], above: tuple) -> dict[str, Any]:
    data: dict[str, Any] = {}
    first: dict[str, int] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise Problem("a key must be plain text", where=f"{name}:{line}")
        if key.value in first:
            raise Problem(f"key {key.value!r} stands twice, first on line {first[key.value]}", where=f"{name}:{line}")
        here = _join(dotted, key.value)
        first[key.value] = lines[here] = line
        data[key.value] = _construct(item, name, here, lines, above)
    return data


def _scalar(node: yaml.Node, where: str) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return node.value
    if kind == "null":
        return None
    try:
        if kind == "bool":
            return _BOOLEAN[node.value.lower()]
        if kind == "int":
            return int(node.value)
        if kind == "float":
            return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except (KeyError, ValueError):
        pass
    raise Problem(f"what is tagged {node.tag} is not plain data", where=where, hint="remove the tag")


def _join(dotted: str, key: str) -> str:
    return f"{dotted}.{key}" if dotted else key
