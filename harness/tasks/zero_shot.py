"""Zero-shot (and few-shot) multiple choice by lm-eval's tasks, on the model in memory (Gao et al., zenodo.10256836).

    the choice with the highest log-likelihood after the question;  acc, and acc_norm by the choice's length

Tasks are lm-eval's own by name, `arc_easy+piqa`, and our small suites for models without a hub, which are lm-eval tasks
too (`suites/`). Prompts, choices and judgements are lm-eval's; only the loop over documents is ours, so that
predictions come one by one and resume. Where `HARNESS_MIRROR` is set, the data come from there; a split that the mirror
lacks is left out, and every row says the split it was judged on. This file imports neither torch nor lm-eval until
`predict` is called, so that `sources` can be asked while planning.
"""

from __future__ import annotations

import copy
import importlib.metadata
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from harness.problems import Problem
from harness.ranges import Whole
from harness.sources import Source
from harness.tasks import _catalogue

if TYPE_CHECKING:
    from harness.tasks._batches import Predictions

READS = None
METRIC = "accuracy"
PACKAGES = ("lm_eval",)
MEASURES = ("acc", "acc_norm")


@dataclass(frozen=True)
class Document:
    """One question of one task, with lm-eval's requests for it.

    Attributes:
        task: lm-eval's task.
        index: Place in the task's split.
        doc: The row.
        requests: lm-eval's instances: (context, continuation) each.
        protocol: Harness version, task, task version, split and shots.
    """

    task: Any
    index: int
    doc: dict[str, Any]
    requests: list[Any]
    protocol: str


def sources(*, tasks: str = "tiny_cldr+tiny_arithmetic+tiny_prose", shots: Whole | None = None) -> dict[str, Source]:
    """Returns where each task's data come from; light, for planning.

    Raises:
        Problem: A task is unknown or not judged by accuracy, or its data cannot be had here.
    """
    return {entry.name: _catalogue.source(entry) for entry in _catalogue.entries(tasks)}


def predict(
    model: Any,
    processor: Any,
    rows: None,
    start: int,
    batch_size: int,
    limit: int | None,
    *,
    tasks: str = "tiny_cldr+tiny_arithmetic+tiny_prose",
    shots: Whole | None = None,
) -> Predictions:
    """Multiple choice by likelihood: lm-eval's tasks by name (arc_easy+piqa), or our tiny suites.

    Args:
        model: A decoder-only or encoder-decoder language model.
        processor: Its tokenizer.
        rows: Not used: the tasks bring their data.
        start: Documents done before, over all tasks.
        batch_size: Sequences a batch, and documents between two batches' cuts.
        limit: Documents a task; all where None.
        tasks: Names joined with `+`.
        shots: Examples before each question; where None, each task's own number.

    Returns:
        A row per document: `task`, `doc` (its place), `acc`, `acc_norm` where the task reports it, `cut` (whether a
        prompt was longer than the context, whose end lm-eval keeps), `protocol`.
    """
    from lm_eval.models.huggingface import HFLM

    from harness.tasks._batches import in_batches

    with _quiet():
        tokenizer = copy.deepcopy(processor)  # lm-eval sets a padding token
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
        documents = [document for task in _build(tasks) for document in _documents(*task, shots, limit)]

    def judge(batch: list[Document]) -> list[dict[str, Any]]:
        with _quiet():
            requests = [request for document in batch for request in document.requests]
            answers = iter(lm.loglikelihood(requests, disable_tqdm=True))
            return [_row(lm, document, [next(answers) for _ in document.requests]) for document in batch]

    return in_batches(documents, start, batch_size, judge)


def _build(tasks: str) -> list[tuple[Any, str]]:
    """Returns lm-eval's tasks and the splits they are judged on, reading our sources."""
    import datasets
    from lm_eval.tasks import TaskManager

    found = [(entry, _catalogue.source(entry)) for entry in _catalogue.entries(tasks)]
    bars = not datasets.are_progress_bars_disabled()
    with TemporaryDirectory(prefix="harness-tasks-") as folder:
        for entry, source in found:
            content = {"include": str(entry.path), "task": entry.name, **_catalogue.overrides(entry, source)}
            Path(folder, f"{entry.name}.yaml").write_text(yaml.safe_dump(content), encoding="utf8")
        manager = TaskManager(include_path=folder, include_defaults=False)
        datasets.disable_progress_bars()
        try:
            built = manager.load([entry.name for entry, _ in found])["tasks"]
        finally:
            if bars:
                datasets.enable_progress_bars()
    return [(built[entry.name], _catalogue.judged(entry, source)) for entry, source in found]


def _documents(task: Any, split: str, shots: int | None, limit: int | None) -> Iterator[Document]:
    """Yields a task's documents with their requests, the examples drawn as `lm_eval.simple_evaluate` draws them."""
    name, own = task.config.task, task.config.num_fewshot
    if shots and own == 0:
        raise Problem(f"the task {name!r} is zero-shot by its definition", hint="leave the option shots out")
    count = shots if shots is not None else own or 0
    task.set_config("num_fewshot", count)
    task.set_fewshot_seed(1234)
    version = f"lm-eval {importlib.metadata.version('lm_eval')} {name} v{task.VERSION}"
    shown = next((s for s in (task.config.fewshot_split, task.config.training_split) if s), split)
    protocol = f"{version} {split} {count}-shot" + (f" from {shown}" if count else "")
    for index, doc in task.doc_iterator(rank=0, limit=limit, world_size=1):
        context = task.fewshot_context(doc, num_fewshot=count, gen_prefix=task.doc_to_prefix(doc))
        requests = task.construct_requests(doc=doc, ctx=context, metadata=(name, index, 1))
        yield Document(task, index, doc, requests if isinstance(requests, list) else [requests], protocol)


def _row(lm: Any, document: Document, answers: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    found = document.task.process_results(document.doc, list(answers))
    texts = [list(r.args) if lm.backend == "seq2seq" else ["".join(r.args)] for r in document.requests]
    cut = any(len(lm.tok_encode(text)) > lm.max_length + 1 for pieces in texts for text in pieces if text)
    measured = {measure: float(found[measure]) for measure in MEASURES if measure in found}
    name = document.task.config.task
    return {"task": name, "doc": document.index, **measured, "cut": cut, "protocol": document.protocol}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps lm-eval's remarks off the terminal; what they say of cut prompts stands in the rows."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
