"""What a model weighs on the disk and in memory, and how long it takes to load, in each form that it is written in."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import export, models, rooms
from harness.exported import PLAIN
from harness.inference import roofline, weights

REPEATS = 3
PAGE = 4096


def size(folder: Path) -> int:
    """Returns the bytes of a model's weights on the disk."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def timed(load: Callable[[], nn.Module]) -> tuple[nn.Module, float]:
    """Returns a model and the seconds until it was loaded: it can be called, and every page of its weights was read.

    What maps a file into memory and reads nothing yet has not loaded it. Memory that several weights lie in is read
    once for all of them: a thousand small ones, each by itself, would take longer to be asked for than to be read.
    """
    begin = time.perf_counter()
    model = load()
    held = (tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()])
    for storage in {each.data_ptr(): each for each in held}.values():
        torch.empty(0, dtype=torch.uint8).set_(storage)[::PAGE].sum()
    return model, time.perf_counter() - begin


def form_of(engine: str) -> list[tuple[str, str, str]]:
    """Returns format, precision and head of the file that goes with an engine; nothing where it packs no weights."""
    options = rooms.resolve("engine", engine).options
    return [(options["format"], options["precision"], options["head"])] if "format" in options else []


def loading(
    model: nn.Module, processor: Any, forms: Sequence[tuple[str, str, str]], scratch: Path
) -> list[dict[str, Any]]:
    """Writes a model in several forms and loads each three times, as `timed` does.

    The files have just been written, so they are read from the system's cache, not from the disk.

    Args:
        model: Dense float32 weights.
        processor: Its processor.
        forms: Format, precision and head of each.
        scratch: A folder for them.

    Returns:
        Of each form what it is, `bytes_on_disk` (weights alone), `bytes_in_memory` and `load_seconds`, the median.
    """
    said = []
    for format, precision, head in forms:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        export.export(model, processor, folder, format, precision, head=head)
        load = models.load if format == PLAIN else weights.load
        seconds = []
        for _ in range(REPEATS):
            loaded, took = timed(lambda: load(folder))  # noqa: B023
            seconds.append(took)
        said.append(
            {
                "format": format,
                "precision": precision,
                "head": head,
                "bytes_on_disk": size(folder),
                "bytes_in_memory": roofline.in_memory(loaded),
                "load_seconds": statistics.median(seconds),
            }
        )
        del loaded  # before its files
        shutil.rmtree(folder)
    return said
