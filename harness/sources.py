"""Where models and data come from: a folder, a mirror of the hub, or the hub; and which bytes exactly.

A name is looked up as an existing folder, then in each folder of `HARNESS_MIRROR` (separated as in PATH, hub layout:
`models/<org>/<name>`, `datasets/<org>/<name>`), then on the hub. A set `HARNESS_MIRROR` closes the hub: what the mirror
lacks is a problem before anything runs, not a download in the middle of it.

A folder's revision is the sha256 of its file names and bytes; digests of files are remembered by path, size and time in
the user's cache folder (`HARNESS_CACHE`, by default `~/.cache/harness`), so that only the first plan reads the bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.problems import Problem, nearest, unknown

REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""What a hub name looks like."""


@dataclass(frozen=True)
class Source:
    """Where one model or data set, or a package that scores, comes from.

    Attributes:
        kind: `hub`, `mirror`, `folder`, `generated` or `package`.
        name: The hub name, the folder's name, or the name of the generator.
        revision: The asked commit or branch on the hub, `sha256:...` of a folder's content, a generator's version.
        path: The folder; None on the hub and for generated data.
    """

    kind: Literal["hub", "mirror", "folder", "generated", "package"]
    name: str
    revision: str
    path: Path | None = None

    @property
    def identity(self) -> str:
        """What a stage key holds: kind, name and revision, but not where on this machine the folder lies."""
        return f"{self.kind}:{self.name}@{self.revision}"


def model_source(name: str, revision: str = "main") -> Source:
    """Finds a model by hub name or folder.

    Raises:
        Problem: It cannot be had here; says where it was looked for and how to get it.
    """
    return _find("models", name, revision)


def dataset_source(name: str, config: str | None = None, splits: Sequence[str] = (), revision: str = "main") -> Source:
    """Finds a data set by hub name or folder.

    Args:
        name: Hub name or folder.
        config: The hub's configuration that will be read.
        splits: The splits that will be read, `a+b` for both.
        revision: Branch or commit, on the hub only.

    Raises:
        Problem: It cannot be had here, or its card says that the configuration or a split is not there.
    """
    source = _find("datasets", name, revision)
    if source.path is not None:
        _check_splits(source, config, [part for split in splits for part in split.split("+")])
    return source


def generated(name: str, version: str, *packages: str) -> Source:
    """Returns the source of generated data: our version and those of the installed packages that it is drawn from."""
    drawn = [f"{package}-{importlib.metadata.version(package)}" for package in packages]
    return Source("generated", name, "+".join([version, *drawn]))


def mirrors() -> list[Path]:
    """Returns the folders of `HARNESS_MIRROR` in order; none if it is not set.

    Raises:
        Problem: One of them is no folder.
    """
    folders = [Path(part) for part in os.environ.get("HARNESS_MIRROR", "").split(os.pathsep) if part]
    for folder in folders:
        if not folder.is_dir():
            raise Problem(f"HARNESS_MIRROR names {str(folder)!r}, which is no folder")
    return folders


def _find(kind: str, name: str, revision: str) -> Source:
    folder = Path(name).expanduser().resolve()
    if folder.is_dir():
        return Source("folder", folder.name, content_sha(_checked(kind, folder)), folder)
    if not REPOSITORY.fullmatch(name):
        raise Problem(f"there is no folder {name!r}", hint="give a folder that exists, or a hub name such as org/name")
    roots = mirrors()
    for folder in (root / kind / name for root in roots):
        if folder.is_dir():
            return Source("mirror", name, content_sha(_checked(kind, folder)), folder)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    reachable = not offline or _in_hub_cache(kind, name, revision)
    if not roots and not name.startswith("mirror/") and reachable:
        return Source("hub", name, revision)
    raise _absent(kind, name, roots)


def _checked(kind: str, folder: Path) -> Path:
    if kind == "models" and not (folder / "config.json").is_file():
        raise Problem("this folder is no model: it has no config.json", where=str(folder))
    if not _files(folder):
        raise Problem("this folder is empty", where=str(folder))
    return folder


def _absent(kind: str, name: str, roots: Sequence[Path]) -> Problem:
    """Returns the problem that an item is not here: where it was looked for, what is near it, how to get it."""
    what = {"models": "model", "datasets": "data set"}[kind]
    looked = [str(root / kind / name) for root in roots] or ["the hub's cache (HF_HUB_OFFLINE is set)"]
    there = [f"{p.parent.name}/{p.name}" for root in roots for p in root.glob(f"{kind}/*/[!.]*") if p.is_dir()]
    script = next((s for root in roots for s in sorted(root.glob("add_*.py")) if name in s.read_text("utf8")), None)
    download = f"hf download {name}" + (" --repo-type dataset" if kind == "datasets" else "")
    if script:
        hint = f"`python {script}` adds it (its --help says how to write it into a folder of your own)"
    elif name.startswith("mirror/"):
        hint = "it has no twin on the hub: set HARNESS_MIRROR to a mirror folder that holds it"
        looked = looked if roots else ["HARNESS_MIRROR (not set)"]
    elif roots:
        hint = f"`{download} --local-dir {looked[0]}` puts it there; or unset HARNESS_MIRROR to use the hub"
    else:
        hint = f"`{download}` with a network, or set HARNESS_MIRROR to a folder that holds it"
    absent = f"{what} {name!r} is not here; looked in {', '.join(looked)}"
    return Problem(absent, nearest=nearest(name, there), hint=hint)


def _in_hub_cache(kind: str, name: str, revision: str) -> bool:
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
    reference = repository / "refs" / revision
    commit = reference.read_text(encoding="utf8").strip() if reference.is_file() else revision
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    return (repository / "snapshots" / commit).is_dir() or (
        kind == "datasets" and (prepared / name.replace("/", "___")).is_dir()
    )


def card_splits(folder: Path) -> dict[str, tuple[str, ...]]:
    """Reads each configuration's splits from a data set's card, the YAML head of README.md; empty if it says none."""
    import yaml

    card = folder / "README.md"
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf8"), re.DOTALL) if card.is_file() else None
    configs = (yaml.safe_load(head[1]) or {}).get("configs", []) if head else []
    found: dict[str, tuple[str, ...]] = {}
    for config in configs:
        files = config.get("data_files", [])
        named = [f["split"] for f in files if isinstance(f, Mapping)] if isinstance(files, list) else []
        found[str(config["config_name"])] = tuple(named) or ("train",)
    return found


def _check_splits(source: Source, config: str | None, splits: Sequence[str]) -> None:
    there = card_splits(source.path)
    if not there:
        return
    if config is not None and config not in there:
        raise unknown(f"configuration of {source.name}", config, there, str(source.path))
    have = there[config] if config else tuple(split for names in there.values() for split in names)
    for split in splits:
        if split not in have:
            what = f"{source.name}{f' ({config})' if config else ''} has no split {split!r} here"
            others = [other for other, names in there.items() if split in names]
            hint = f"there is: {', '.join(have)}" + (f"; {split} is in {', '.join(others)}" if others else "")
            raise Problem(what, where=str(source.path), nearest=nearest(split, have), hint=hint)


def _files(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted((p for p in found if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())


def content_sha(folder: Path) -> str:
    """Returns `sha256:<hex>` over a folder's sorted file names and bytes; hidden files do not count."""
    memory = Path(os.environ.get("HARNESS_CACHE") or Path.home() / ".cache" / "harness") / "sha256.json"
    known = _remembered(memory)
    new: dict[str, list] = {}
    total = hashlib.sha256()
    for path in _files(folder):
        key, stat = str(path.resolve()), path.stat()
        *seen, digest = known.get(key, [None])
        if seen != [stat.st_size, stat.st_mtime_ns]:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            new[key] = [stat.st_size, stat.st_mtime_ns, digest]
        total.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    if new:
        _remember(memory, new)
    return f"sha256:{total.hexdigest()}"


def _remembered(memory: Path) -> dict[str, list]:
    try:
        read = json.loads(memory.read_text(encoding="utf8"))
        return {path: entry for path, entry in read.items() if len(entry) == 3}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or damaged: the bytes are read again
        return {}


def _remember(memory: Path, new: Mapping[str, list]) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False, encoding="utf8") as file:
            json.dump({**_remembered(memory), **new}, file)
        os.replace(file.name, memory)
