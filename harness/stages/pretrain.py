"""The sparse pretraining stage: the pruned model goes on learning from general text, its zeros held (Sparse Llama).

    prune -> pretrain (this stage) -> tune

In Sparse Llama (arXiv:2405.03594) it makes the sparse foundation that tasks are then fine-tuned from. It computes what
`tune` computes, on other data and before it; it is a stage of its own so that one foundation serves every task, seed
and loss after it. Its summary, too, is called `tune.json`.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.runs.job import Job, Progress
from harness.stages import tune

VERSION = 1
FILE = tune.FILE


def run(job: Job) -> Iterator[Progress]:
    """Trains `job.parents["model"]` into `job.folder`, reporting after every step."""
    return tune.run(job)
