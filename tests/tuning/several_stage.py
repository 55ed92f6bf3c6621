"""A stage for tests of several processes: cases of fine-tuning, one after the other; the first process writes them."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import conftest
import torch

from harness import models
from harness.problems import Problem
from harness.pruning import keep
from harness.pruning.recipe import recipe
from harness.runs.job import Progress
from harness.runs.processes import ShareDone
from harness.stages import tune
from harness.stages._pruner import Pruner
from harness.tuning import session

VERSION = 1


def run(job):
    """Does what `job.options["do"]` says."""
    known = {"fit": _fit, "fail": _fail, "raise": _raise, "die": _die, "lose": _lose, "slow": _slow}
    yield from known[job.options["do"]](job)


def case(options: dict, scratch, mask=None):
    """Yields a run's progress; returns its weights and what `fit` returned besides."""
    torch.set_num_threads(1)
    family = options.pop("family", "llama")
    (model, rows, *given), named = conftest.run_parts(family, options)
    rows = rows[: options.pop("examples", None)]
    for module in model.modules():  # what several processes draw is not what one draws
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    if options.get("ramp"):
        named = {"teacher": named["teacher"], "ramp": ramp(model, family, options, scratch)}
    else:
        keep.apply(model, named["keeps"])
    for row in options.pop("unscored", ()):
        rows[row]["labels"][:] = -100
    rest = yield from session.fit(model, rows, *given, scratch, **named)
    return {name: value.clone() for name, value in model.state_dict().items()}, type(model).__name__, *rest


def ramp(model, family: str, options: dict, scratch):
    """A ramp over batches of random tokens, as the stage makes it."""
    prune = options["prune"]
    how = recipe("criterion", prune["criterion"], prune["pattern"])
    batches = [conftest.batch_of(family)(rows=rows, seed=rows) for rows in (3, 4)]
    scratch.mkdir(parents=True, exist_ok=True)
    pruned = Pruner(prune, model, models.blocks(model), how, batches, batches[:1])
    return tune._ramp(pruned, options["ramp"], scratch / "prune.json")


def _fit(job):
    done = {}
    for name, options in job.options["cases"].items():
        with contextlib.suppress(ShareDone):
            done[name] = yield from case(dict(options), job.scratch / name)
    if done:
        torch.save(done, job.folder / "done.pt")


def _fail(job):
    yield Progress(1, 2)
    if os.environ["RANK"] == "1":
        raise Problem("the second has a problem", where="here", nearest=["there"], hint="mend it")
    time.sleep(60)


def _raise(job):
    yield Progress(1, 2)
    raise OSError(28, "No space left on device", "file")


def _die(job):
    yield Progress(1, 2)
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _lose(job):
    """The second process is killed a moment after the first has told that its peer is gone."""
    yield Progress(1, 2)
    if os.environ["RANK"] == "1":
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("Connection closed by peer")


def _slow(job):
    (job.scratch / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
    yield Progress(1, 2)
    time.sleep(60)
