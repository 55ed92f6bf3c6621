"""Which experiments there are: names, places, and the one line that `harness list` prints of each.

An entry's name is its path below the folder `experiments/` without `.yaml`. Nothing here imports pydantic or griffe.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from harness.problems import Problem, unknown
from harness.spec import yaml_lines

SCALES = ("tiny", "small", "paper")
"""The scales an entry may have, the cheapest first."""


class Headline(NamedTuple):
    """What a list shows of an entry; `paper` is None for one that stands in no paper."""

    title: str
    paper: str | None
    scales: tuple[str, ...]


def folder(start: Path | None = None) -> Path:
    """Returns the experiments folder: `experiments/` in `start` (default: here) or above it, else the checkout's own.

    Raises:
        Problem: There is none.
    """
    start = (start or Path.cwd()).absolute()
    own = Path(__file__).parents[2] / "experiments"
    for place in (*(p / "experiments" for p in (start, *start.parents)), own):
        if place.is_dir():
            return place
    raise Problem(f"no folder 'experiments' in {start} or above it", hint="make one, or go to the checkout")


def names(root: Path | None = None) -> list[str]:
    """Returns the names of all entries below `root` (default: `folder()`), sorted."""
    root = root or folder()
    return sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml"))


def path_of(name: str, root: Path | None = None) -> Path:
    """Returns an entry's file.

    Raises:
        Problem: There is no such entry; with the nearest names.
    """
    root = root or folder()
    if name not in (known := names(root)):
        raise unknown("entry", name, known)
    path = root / f"{name}.yaml"
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def scales_of(data: dict) -> tuple[str, ...]:
    """Returns the scales of an entry's data, its own top level first.

    The top level is the scale `paper`, or `tiny` where its model is a tiny one built from scratch.
    """
    top = "tiny" if str(data.get("model")).startswith("tiny/") else "paper"
    more = data.get("scales")
    return (top, *(more if isinstance(more, dict) else ()))


def headline(path: Path) -> Headline:
    """Reads an entry's title, paper and scales without checking the rest of it.

    Raises:
        Problem: The file is no YAML.
    """
    data = yaml_lines.load(path).data
    paper = data.get("paper")
    return Headline(
        str(data.get("title", path.stem)),
        " ".join(str(paper[key]) for key in ("id", "table") if paper.get(key)) if isinstance(paper, dict) else None,
        scales_of(data),
    )
