"""Where models and data come from: a folder, a mirror of the hub, or the hub; and which bytes exactly.

A name is looked up as an existing folder, then in each folder of `HARNESS_MIRROR` (separated as in PATH, hub layout:
`models/<org>/<name>`, `datasets/<org>/<name>`), then on the hub. A set `HARNESS_MIRROR` closes the hub: what the mirror
lacks is a problem before anything runs, not a download in the middle of it.

A branch of the hub is resolved to its commit while planning, so that new content there is another key, and a record
says what was read. Without a connection the commit is the one last asked for, where its files are in the hub's cache.

A folder's revision is the sha256 of its file names and bytes; digests of files are remembered by path, size and time in
the user's cache folder (`HARNESS_CACHE`, by default `~/.cache/harness`), so that only the first plan reads the bytes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import remembered
from harness.problems import Problem, nearest, unknown

COMMITS, DIGESTS = "commits.json", "sha256.json"
"""The remembered commits of the hub's branches, and the sha256 of files by path, size and time."""
REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""What a hub name looks like."""
LONGEST = 96
"""Characters of a hub name, and of a branch."""
COMMIT = re.compile(r"[0-9a-f]{40}")
_WHAT = {"models": "model", "datasets": "data set"}


@dataclass(frozen=True)
class Source:
    """Where a model or data set comes from; or what else decides a result: a package that scores, the machine timed.

    Attributes:
        kind: `hub`, `mirror`, `folder`, `generated`, `package` or `machine`.
        name: The hub name, the folder's name, or the name of the generator.
        revision: The commit on the hub, `sha256:...` of a folder's content, a generator's version.
        path: The folder; None on the hub and for generated data.
    """

    kind: Literal["hub", "mirror", "folder", "generated", "package", "machine"]
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


def dataset_source(
    name: str,
    config: str | None = None,
    splits: Sequence[str] = (),
    revision: str = "main",
    alone: bool = False,
) -> Source:
    """Finds a data set by hub name or folder.

    Args:
        name: Hub name or folder.
        config: The hub's configuration that will be read.
        splits: The splits that will be read, `a+b` for both.
        revision: Branch or commit, on the hub only.
        alone: Whether the splits will be read without the configuration's others, whose files then need not be here;
            the `datasets` library looks for all of them unless it is told files.

    Raises:
        Problem: It cannot be had here, or its card says that the configuration or a split is not there, or names a file
            that is not.
    """
    source = _find("datasets", name, revision)
    if source.path is not None:
        _check_card(source, config, [part for split in splits for part in split.split("+")], alone)
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


def folder_at(name: str) -> Path | None:
    """Returns the folder of this path, absolute; None if there is none, or if no path can be so."""
    folder = os.path.expanduser(name)
    return Path(folder).resolve() if os.path.isdir(folder) else None


def _find(kind: str, name: str, revision: str) -> Source:
    if folder := folder_at(name):
        return Source("folder", folder.name, content_sha(_checked(kind, folder)), folder)
    if not REPOSITORY.fullmatch(name) or len(name) > LONGEST:
        hint = f"give a folder that exists, or a hub name such as org/name, of at most {LONGEST} characters"
        raise Problem(f"there is no folder {name!r}", hint=hint)
    if len(revision) > LONGEST or not revision.isprintable():
        hint = f"a branch, of at most {LONGEST} characters, or a commit"
        raise Problem(f"{_WHAT[kind]} {name!r}: {revision!r} is no revision", hint=hint)
    roots = mirrors()
    for folder in (root / kind / name for root in roots):
        if folder.is_dir():
            return Source("mirror", name, content_sha(_checked(kind, folder)), folder)
    if roots or name.startswith("mirror/"):
        raise _absent(kind, name, roots)
    return Source("hub", name, _commit(kind, name, revision))


def _checked(kind: str, folder: Path) -> Path:
    if kind == "models" and not (folder / "config.json").is_file():
        raise Problem("this folder is no model: it has no config.json", where=str(folder))
    if not any(_files(folder)):
        raise Problem("this folder is empty", where=str(folder))
    return folder


def _absent(kind: str, name: str, roots: Sequence[Path]) -> Problem:
    """Returns the problem that an item is not here: where it was looked for, what is near it, how to get it."""
    looked = [str(root / kind / name) for root in roots] or ["HARNESS_MIRROR (not set)"]
    there = [f"{p.parent.name}/{p.name}" for root in roots for p in root.glob(f"{kind}/*/[!.]*") if p.is_dir()]
    script = next((s for root in roots for s in sorted(root.glob("add_*.py")) if name in s.read_text("utf8")), None)
    if script:
        hint = f"`python {script}` adds it (its --help says how to write it into a folder of your own)"
    elif name.startswith("mirror/"):
        hint = "it has no twin on the hub: set HARNESS_MIRROR to a mirror folder that holds it"
    else:
        hint = f"`{_download(kind, name)} --local-dir {looked[0]}` puts it there; unset HARNESS_MIRROR to use the hub"
    absent = f"{_WHAT[kind]} {name!r} is not here; looked in {', '.join(looked)}"
    return Problem(absent, nearest=nearest(name, there), hint=hint)


def _download(kind: str, name: str) -> str:
    return f"hf download {name}" + (" --repo-type dataset" if kind == "datasets" else "")


def _commit(kind: str, name: str, revision: str) -> str:
    """Returns the commit of a revision: the hub's, or without a connection the one whose files are in its cache.

    Raises:
        Problem: The hub does not have it or does not give it to us, or neither the hub nor its cache can be asked.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    commit, why = (None, "HF_HUB_OFFLINE is set") if offline else _on_hub(kind, name, revision)
    key, known = f"{kind}/{name}@{revision}", remembered.read(COMMITS)
    if commit is None:
        commit = _in_hub_cache(kind, name, revision, known.get(key))
    elif known.get(key) != commit:
        remembered.write(COMMITS, known | {key: commit})
    if commit is None:
        what = f"{_WHAT[kind]} {name!r}, revision {revision!r}, is not here: the hub's cache lacks it, and {why}"
        hint = f"`{_download(kind, name)}` with a network, or set HARNESS_MIRROR to a folder that holds it"
        raise Problem(what, hint=hint)
    return commit


@functools.cache
def _on_hub(kind: str, name: str, revision: str) -> tuple[str | None, str]:
    """Asks the hub for a revision's commit, once a process; without an answer returns None, and why."""
    from huggingface_hub import HfApi, errors

    hub, repository = HfApi(), {"repo_id": name, "repo_type": kind.removesuffix("s")}
    what, page = f"{_WHAT[kind]} {name!r}", f"huggingface.co/{'datasets/' if kind == 'datasets' else ''}{name}"
    try:
        found = hub.repo_info(**repository, revision=revision, timeout=10)
        if found.gated:  # anybody sees the commit; the files are for those who asked
            hub.auth_check(**repository)
    except errors.GatedRepoError as error:
        hint = (
            f"ask for access on https://{page} and run `hf auth login`; HF_HUB_OFFLINE=1 reads what the hub's cache "
            "holds; or set HARNESS_MIRROR to a folder that holds it"
        )
        raise Problem(f"{what} is gated: the hub does not give it to you", hint=hint) from error
    except errors.RevisionNotFoundError as error:
        hint = f"its branches and commits: https://{page}/tree/main"
        raise Problem(f"{what} has no revision {revision!r} on the hub", hint=hint) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        hint = "check the name; a private one needs `hf auth login`; or set HARNESS_MIRROR to a folder that holds it"
        raise Problem(f"{what} is not on the hub, or is private", hint=hint) from error
    except (OSError, errors.HTTPError) as error:
        return None, f"the hub cannot be reached ({type(error).__name__})"
    return found.sha, ""


def snapshot(source: Source) -> Path | None:
    """Returns the folder of a model's or data set's files, its own or in the hub's cache; None if nothing is here."""
    if source.path is not None or source.kind != "hub":
        return source.path
    from huggingface_hub import constants

    places = Path(constants.HF_HUB_CACHE).glob(f"*--{source.name.replace('/', '--')}/snapshots/{source.revision}")
    return next(places, None)


def _in_hub_cache(kind: str, name: str, revision: str, known: str | None) -> str | None:
    """Returns the commit of a revision whose files are cached: the one `known`, the cache's own, the revision."""
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
    reference = repository / "refs" / revision
    noted = reference.read_text(encoding="utf8").strip() if reference.is_file() else None
    commits = [commit for commit in (known, noted, revision) if commit and COMMIT.fullmatch(commit)]
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    for commit in commits:
        if (repository / "snapshots" / commit).is_dir():
            return commit
        if kind == "datasets" and any((prepared / name.replace("/", "___")).glob(f"*/*/{commit}")):
            return commit
    return None


def card_files(folder: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """Reads each configuration's splits and their files, as patterns, from a data set's card, the head of README.md.

    Returns:
        Configuration -> split -> patterns below the folder; empty if the card says none.

    Raises:
        Problem: The head is no YAML, or lists its configurations in another way than the hub's cards do.
    """
    import yaml

    found: dict[str, dict[str, tuple[str, ...]]] = {}
    card = folder / "README.md"
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf8"), re.DOTALL) if card.is_file() else None
    try:
        for config in ((_yaml(head[1]) or {}).get("configs") or []) if head else []:
            files = config.get("data_files", [])
            split = [f for f in files if isinstance(f, Mapping)] if isinstance(files, list) else []
            named = {f["split"]: _texts(f.get("path", ())) for f in split}
            found[str(config["config_name"])] = named or {"train": _texts(files)}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())
        raise Problem("the YAML head of this card is broken", where=str(card), hint=said) from error
    return found


@functools.cache
def _yaml(text: str) -> Any:
    """Reads YAML, which nobody changes; a plan asks once for each of MMLU's 57 subjects, which share a card."""
    import yaml

    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def card_splits(folder: Path) -> dict[str, tuple[str, ...]]:
    """Returns each configuration's splits by a data set's card, as `card_files` reads it."""
    return {config: tuple(files) for config, files in card_files(folder).items()}


def _texts(value: Any) -> tuple[str, ...]:
    """Returns a text, or the texts of a list."""
    return (value,) if isinstance(value, str) else tuple(one for one in value if isinstance(one, str))


def _check_card(source: Source, config: str | None, splits: Sequence[str], alone: bool) -> None:
    """Checks that the card of a data set has what is asked for, and that its files are there."""
    there = card_files(source.path)
    if not there:
        return
    if config is not None and config not in there:
        raise unknown(f"configuration of {source.name}", config, there, str(source.path))
    have = there[config] if config else dict.fromkeys(split for files in there.values() for split in files)
    said = f"{source.name}{f' ({config})' if config else ''}"
    for split in splits:
        if split not in have:
            others = [other for other, files in there.items() if split in files]
            hint = f"there is: {', '.join(have)}" + (f"; {split} is in {', '.join(others)}" if others else "")
            what = f"{said} has no split {split!r} here"
            raise Problem(what, where=str(source.path), nearest=nearest(split, have), hint=hint)
    read = there[config] if config else there.get("default") or (next(iter(there.values())) if len(there) == 1 else {})
    for split, patterns in read.items():
        if (split in splits or not alone) and (lost := _without_file(source.path, patterns)):
            what = f"{said}: the split {split!r} has no file {lost!r} here, which the card names"
            raise Problem(what, where=str(source.path), hint=_again(source))


def _without_file(folder: Path, patterns: Sequence[str]) -> str | None:
    """Returns the first of some patterns that is no file below a folder; what lies elsewhere is not looked for."""
    inside = (pattern for pattern in patterns if pattern and "://" not in pattern and not pattern.startswith("/"))
    return next((each for each in inside if not any(path.is_file() for path in folder.glob(_recursive(each)))), None)


def _recursive(pattern: str) -> str:
    """Returns a pattern for pathlib, where `**` at the end stands for folders alone."""
    return f"{pattern}/*" if pattern.endswith("**") else pattern


def _again(source: Source) -> str:
    if source.kind != "mirror" or source.name.startswith("mirror/"):
        return "copy it from where the data set comes from"
    return f"`{_download('datasets', source.name)} --local-dir {source.path}` gets what is not here"


def _files(folder: str | Path) -> Iterator[str]:
    """Yields the paths in a folder of its files; hidden ones do not count, and links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = (name for name in folders if not name.startswith("."))
        inside = "" if place == os.fspath(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
        there = (name for name in names if not name.startswith(".") and os.path.isfile(os.path.join(place, name)))
        yield from (f"{inside}{name}" for name in there)


def content_sha(folder: Path) -> str:
    """Returns `sha256:<hex>` over a folder's sorted file names and bytes; hidden files do not count."""
    known, root = _digests(), os.path.realpath(folder)
    new: dict[str, list] = {}
    total = hashlib.sha256()
    for name in sorted(_files(root)):
        path = os.path.join(root, name)
        key, stat = os.path.realpath(path) if os.path.islink(path) else path, os.stat(path)
        *seen, digest = known.get(key, [None])
        if seen != [stat.st_size, stat.st_mtime_ns]:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            new[key] = [stat.st_size, stat.st_mtime_ns, digest]
        total.update(f"{name}\0{digest}\n".encode())
    if new:
        remembered.write(DIGESTS, _digests() | new)
    return f"sha256:{total.hexdigest()}"


def _digests() -> dict[str, list]:
    return {
        path: entry for path, entry in remembered.read(DIGESTS).items() if isinstance(entry, list) and len(entry) == 3
    }
