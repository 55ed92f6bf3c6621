"""`harness quantize`: one quantisation outside any experiment.

A model that `harness prune` made keeps its mask; of any other, the weights that are zero stay zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import oneoff
from harness.problems import Problem
from harness.runs.decides import calibrates_quantisation
from harness.runs.origins import Origins
from harness.sources import Source
from harness.spec.sections import Quantize

if TYPE_CHECKING:
    from rich.console import Console

FILE = "quantize.json"


def section(
    given: Mapping[str, Any], calibration: str | None, task: str | None = None, length: int | None = None
) -> dict[str, Any]:
    """Returns the resolved `quantize` section.

    Args:
        given: Its settings by name; None and empty ones are left to their defaults.
        calibration: A data choice, or a JSON Lines file; None where nothing looks at data.
        task: How rows become examples; by default the task that reads data of this kind.
        length: Tokens of an example, for a task with that option; for text 2048 by default.

    Raises:
        Problem: A setting is wrong, as in an experiment; or something looks at data, and none is given.
    """
    options = oneoff.checked(Quantize, given, oneoff.reads(calibration, task, length))
    if calibration is None and calibrates_quantisation(options):
        raise Problem("this looks at calibration data, and none is given", hint=oneoff.NO_CALIBRATION)
    return options


def command(model: str, out: Path, options: Mapping[str, Any]) -> None:
    """Checks what can be checked, quantises, and prints what came of it.

    Raises:
        Problem: Something is wrong; nothing has been written then.
    """
    from harness import show
    from harness.device import device

    folder = oneoff.check_folder(out)
    source = sources(model, options)
    device()
    report = quantise(source, folder, options, show.console)
    overall = report["overall"]
    inputs = "" if options["activations"] == "none" else f", 8-bit inputs ({options['activations']})"
    lines = {
        "layers": f"{overall['layers']}, {overall['weights']:,} weights of {options['bits']} bits{inputs}",
        "zeros": f"{overall['zeros']:.2%} of these weights, {overall['pruned']:.2%} pruned",
        "error": f"{overall['error']:.3%} of a layer's weights",
        "size": f"{show.memory(overall['bytes'])}, codes packed, with their scales",
        "written": str(folder),
    }
    oneoff.tell(lines, show.console)


def sources(model: str, options: Mapping[str, Any]) -> Source:
    """Finds the model and, where something looks at it, the calibration data.

    Raises:
        Problem: One of them cannot be had, or they cannot go together.
    """
    oneoff.refuse_tiny(model)
    origins = Origins()
    source = origins.model(model)
    if calibrates_quantisation(options):
        origins.data(options)
        origins.fits({"model": model, "prune": None, "quantize": options, "evaluate": {}})
    origins.check()
    return source


def quantise(source: Source, folder: Path, options: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """Quantises a model into a folder that is not there yet, or empty.

    Args:
        source: The model.
        folder: The result: model and processor as transformers reads them, `quantize.safetensors`, `quantize.json`, and
            the mask where there is one.
        options: A resolved `quantize` section.
        console: Where the progress is shown, if it is a terminal.

    Returns:
        What `quantize.json` says.
    """
    with oneoff.becoming(folder) as (result, scratch):
        steps = oneoff.work("quantize", options, {"model": source}, result, scratch)
        oneoff.follow(steps, f"quantising {source.name}", console)
        return json.loads((result / FILE).read_text(encoding="utf8"))
