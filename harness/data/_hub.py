"""What the real data sets share: one way to find them and one to read them, from the hub, a mirror or a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.data._rows import check_splits
from harness.problems import Problem
from harness.sources import Source, dataset_source

if TYPE_CHECKING:
    import datasets


def find(
    name: str,
    *,
    known: Sequence[str],
    splits: Sequence[str],
    config: str | None = None,
    revision: str = "main",
    alone: bool = False,
) -> Source:
    """Finds a data set; `splits` may join several with `+`, and are `alone` where no file of another is read.

    Raises:
        Problem: No such split or configuration, or the data set cannot be had here.
    """
    check_splits(name, [part for split in splits for part in split.split("+")], known)
    return dataset_source(name, config, splits, revision, alone=alone)


def read(
    source: Source, split: str, *, config: str | None = None, files: Mapping[str, str] | None = None
) -> datasets.Dataset:
    """Loads one split with the `datasets` library, memory-mapped from its cache.

    Args:
        source: What `find` returned.
        split: The split, or several joined with `+`.
        config: The configuration to read; unused where `files` are given.
        files: Split -> file inside the data set, to read no other file.

    Raises:
        Problem: The library cannot get or read it; says what the library said.
    """
    import datasets

    local = source.path is not None
    quiet = local and not datasets.are_progress_bars_disabled()
    if quiet:  # a bar is for a download
        datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            str(source.path) if local else source.name,
            None if files else config,
            data_files=dict(files) if files else None,
            split=split,
            revision=None if local else source.revision,
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        hint = (
            "a copy in Parquet under HARNESS_MIRROR/datasets stands in for the hub; some hub sets need "
            "`hf auth login`, and those that are a script have Parquet under revision=refs/convert/parquet only"
        )
        raise Problem(
            f"data set {source.name!r}, split {split!r}, cannot be read: {said}",
            where=str(source.path) if local else f"hub, revision {source.revision}",
            hint=None if local else hint,
        ) from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
