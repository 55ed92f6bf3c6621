"""What a prune section says, done to a model: for the pruning stage, and for a tuning stage that prunes.

A pruner is made once, with its calibration batches; each `turn` is a walk to a sparsity over the model as it then is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from harness import models, rooms
from harness.data._rows import Rows
from harness.memory import peak, reset_peak
from harness.models import Block
from harness.problems import Problem
from harness.pruning.gradients import gradients
from harness.pruning.handing import handing
from harness.pruning.keep import Masks
from harness.pruning.recipe import Recipe, clock, recipe
from harness.pruning.survey import survey
from harness.pruning.whole import Setup, prune_model, trial, without
from harness.runs.decides import CALIBRATION, SEARCH, calibrates, held_out, is_judged
from harness.runs.job import Progress
from harness.stages._examples import examples_for, rows_for
from harness.tasks._lengths import fitting

METHOD = ("criterion", "solver", "pattern", "refiner", "allocation", "ramp", "skip")
Batches = list[dict[str, Tensor]]


@dataclass
class Pruner:
    """A prune section on a model, and what came of its last turn.

    Attributes:
        options: The section, resolved.
        model: The model, on its device.
        blocks: Its blocks, each with the linears that are pruned.
        how: How a layer is pruned.
        batches: Calibration batches; none where no method looks at them.
        judged: The held-out batches of a search.
        keeps: The masks [out, in] by layer.
        rows: What `prune.json` says of each layer.
        spent: What it says of each block.
        trials: What it says of each trial, of all turns.
        before: What it says of the time before the first block: gradients, a survey of the model, the trials.
    """

    options: Mapping[str, Any]
    model: nn.Module
    blocks: Sequence[Block]
    how: Recipe
    batches: Batches
    judged: Batches
    keeps: Masks = field(default_factory=Masks)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: dict[str, dict[str, Any]] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)

    @property
    def reached(self) -> float:
        """The fraction of zeros in the layers pruned so far."""
        zeros, size = (sum(row[key] for row in self.rows.values()) for key in ("zeros", "size"))
        return zeros / max(size, 1)

    def turn(self, target: float, done: int = 0, total: int | None = None) -> Generator[Progress, None, None]:
        """Prunes the model in place, reporting after every block.

        Args:
            target: The sparsity.
            done: Blocks done in earlier turns.
            total: Blocks of all turns; by default those of this one.
        """
        total = total or len(self.blocks)
        begin = clock(self.model.device)
        reset_peak(self.model.device)
        slopes = {name: gradients(self.model, self.batches, name, self.blocks) for name in self.how.gradients}
        setup = Setup(self.model, self.blocks, self.batches, self.how, slopes)
        rates = yield from self._rates(setup, target, Progress(done, total, unit="block"))
        seconds = round(clock(self.model.device) - begin, 4)
        self.before = {
            "seconds": round(self.before.get("seconds", 0) + seconds, 4),
            "peak_memory_bytes": max(self.before.get("peak_memory_bytes", 0), peak(self.model.device)),
        }
        for at, block in enumerate(prune_model(setup, rates), done + 1):
            self.keeps.update(block.keeps)
            self.rows.update(block.rows)
            self.spent[block.name] = block.account()
            yield Progress(at, total, {"sparsity": self.reached}, "block")

    def stay_pruned(self, before: Mapping[str, Tensor]) -> None:
        """Takes out of the masks what was pruned before and is still 0, where a layer's rate has fallen since.

        A walk chooses among zeros too. LoSA's released code reads its mask from the weights, so a zero stays one unless
        a solver's compensation revived it.
        """
        for name, mask in before.items():
            alive = (self.model.get_submodule(name).weight != 0).cpu()
            self.keeps[name] = stays = self.keeps[name] & (mask | alive)
            zeros, row = int((~stays).sum()), self.rows[name]
            self.rows[name] = {**row, "zeros": zeros, "reached": zeros / row["size"]}

    def _rates(self, setup: Setup, target: float, here: Progress) -> Generator[Progress, None, dict[str, float]]:
        """Returns the rate of each layer as the pattern can have it; reports, and notes, every trial."""
        allocation = self.options["allocation"]
        needs = rooms.ROOMS["allocation"].method(rooms.parse(allocation).name).needs[2:]

        def allocate(hand: Callable[[Progress], None]) -> dict[str, float]:
            def judge(rates: Mapping[str, float]) -> float:
                fitted = self.how.fit(rates, setup.layers, target)
                begin = clock(self.model.device)
                loss = trial(setup, fitted, self.judged)
                seconds = round(clock(self.model.device) - begin, 4)
                self.trials.append({"sparsity": target, "loss": loss, "seconds": seconds, "rates": fitted})
                hand(replace(here, values={"trial": len(self.trials), "loss": loss}))
                return loss

            told = survey(needs, setup, judge)
            return rooms.bind("allocation", allocation)(setup.layers, target, **told)

        rates = yield from handing(allocate)
        return self.how.fit(rates, setup.layers, target)

    def report(self, **overall: float) -> dict[str, Any]:
        """Returns what `prune.json` says; `overall` is added to what was asked for and reached."""
        options = self.options
        return {
            "method": {name: options[name] for name in METHOD if options[name]},
            "calibration": {name: options[name] for name in CALIBRATION} if self.batches else None,
            "search": {name: options[name] for name in SEARCH} if self.judged else None,
            "overall": {"asked": options["sparsity"], "reached": self.reached, **overall},
            "trials": self.trials,
            "before": self.before,
            "blocks": self.spent,
            "layers": self.rows,
        }


def pruner(options: Mapping[str, Any], model: nn.Module, processor: Any) -> Pruner:
    """Makes the pruner of a resolved `prune` section.

    Raises:
        Problem: A method or a layer is unknown, or there is too little to calibrate or to judge on.
    """
    kind = "solver" if options["solver"] else "criterion"
    how = recipe(kind, options[kind], options["pattern"], options["refiner"])
    blocks = without(models.blocks(model), options["skip"])
    batches = calibration(options, model, processor) if calibrates(options) else []
    judged = held_out_batches(options, model, processor) if is_judged(options) else []
    return Pruner(options, model, blocks, how, batches, judged)


def held_out_batches(options: Mapping[str, Any], model: nn.Module, processor: Any) -> Batches:
    """Returns the batches that a search is judged on: the first `search_limit` examples of the search split.

    Raises:
        Problem: There is no example, or one has more labels than the model reads.
    """
    read = held_out(options)
    try:
        features, collate = examples_for(rows_for(read), read, processor)
    except Problem as problem:
        where = problem.where or "prune.search_data"
        raise problem.at(where) from problem
    features = fitting(features, model)
    most, size = min(options["search_limit"] or len(features), len(features)), options["batch_size"]
    if not most:
        raise Problem(
            f"there is nothing to judge a search on: {read['task']} makes no example of {read['data']}",
            where="prune.search_data",
            hint=f"in the split {read['split']!r}; give other search_data, or a search_task that takes shorter texts",
        )
    return [collate([features[i] for i in range(at, min(at + size, most))]) for at in range(0, most, size)]


def calibration(options: Mapping[str, Any], model: nn.Module, processor: Any) -> Batches:
    """Returns the calibration batches: `samples` different training examples, drawn by the seed.

    Raises:
        Problem: The split has fewer examples, or one has more labels than the model reads.
    """
    rows = rows_for(options)
    features, collate = examples_for(rows, options, processor)
    drawn = fitting(_drawn(features, options), model)
    samples, size = options["samples"], options["batch_size"]
    return [collate([drawn[i] for i in range(at, min(at + size, samples))]) for at in range(0, samples, size)]


def _drawn(features: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
    """Returns the examples that the seed draws; a task that knows how draws without making all of them."""
    samples, seed = options["samples"], options["seed"]
    if hasattr(features, "draw"):
        return features.draw(samples, seed)
    if len(features) < samples:
        raise Problem(
            f"{samples} calibration samples are asked for, and {options['data']} has {len(features)} examples",
            where="prune.samples",
            hint=f"in the split {options['split']!r}; ask for fewer",
        )
    places = random.Random(seed).sample(range(len(features)), samples)
    return Rows(range(samples), lambda at: features[places[at]])
