"""HumanEval: functions completed from their signature and description, judged by running them (arXiv:2107.03374).

    pass@1 = share of the 164 completions that pass their problem's tests, one greedy completion each

A completion ends before the next top-level statement. It is run with its tests in a Python of its own, for at most
`seconds`; anything but a clean exit is a failure. **This executes what the model wrote**, so nothing runs unless
HF_ALLOW_CODE_EVAL=1 says that this machine may, the variable that lm-eval and `evaluate` ask for too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness.problems import Problem
from harness.ranges import Count, Positive
from harness.sources import Source, dataset_source

if TYPE_CHECKING:
    from harness.tasks._batches import Predictions

READS = None
METRIC = "accuracy"
NAME = "openai/openai_humaneval"
ALLOW = "HF_ALLOW_CODE_EVAL"
STOP = re.compile(r"\n(?=class |def |#|if |print)")


def sources(*, max_new_tokens: Count = 384, seconds: Positive = 3.0) -> dict[str, Source]:
    """Returns where the problems come from; light, for planning."""
    return {"humaneval": dataset_source(NAME, splits=("test",))}


def predict(
    model: Any,
    processor: Any,
    rows: None,
    start: int,
    batch_size: int,
    limit: int | None,
    *,
    max_new_tokens: Count = 384,
    seconds: Positive = 3.0,
) -> Predictions:
    """Functions completed greedily and run: HumanEval's pass@1.

    Args:
        model: A decoder-only model.
        processor: Its tokenizer.
        rows: Not used: the task brings its problems.
        start: Problems done before.
        batch_size: Problems a batch.
        limit: Only the first so many problems; all where None.
        max_new_tokens: Most tokens of a completion.
        seconds: How long a completion and its tests may run.

    Returns:
        Rows with `task`, `doc` (the problem's name), `prediction`, `acc` (1.0 where the tests pass) and `protocol`.

    Raises:
        Problem: The environment does not allow that generated code is run; or a problem and its completion do not fit
            into the model's context.
    """
    from harness.data._hub import read
    from harness.data._rows import head
    from harness.tasks._batches import in_batches
    from harness.tasks._generate import completions

    if os.environ.get(ALLOW) != "1":
        hint = f"on a machine that may, set {ALLOW}=1"
        raise Problem("humaneval runs the code that the model writes, and nothing here allows that", hint=hint)

    def complete(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        prompts = [processor(row["prompt"]).input_ids for row in batch]
        said = completions(model, processor, prompts, max_new_tokens)
        return [_judged(row, STOP.split(text, maxsplit=1)[0], seconds) for row, text in zip(batch, said, strict=True)]

    return in_batches(head(read(sources()["humaneval"], "test"), limit), start, batch_size, complete)


def passes(program: str, seconds: float) -> bool:
    """Runs a program in a Python and a folder of its own; says whether it ends by itself, in time and without error."""
    with TemporaryDirectory(prefix="harness-humaneval-") as folder:
        command, quiet = [sys.executable, "-I", "-c", program], subprocess.DEVNULL
        try:
            done = subprocess.run(
                command, cwd=folder, env={}, stdin=quiet, stdout=quiet, stderr=quiet, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def _judged(row: dict[str, Any], completion: str, seconds: float) -> dict[str, Any]:
    program = f"{row['prompt']}{completion}\n{row['test']}\ncheck({row['entry_point']})\n"
    told = {"task": "humaneval", "doc": row["task_id"], "prediction": completion}
    return {**told, "acc": float(passes(program, seconds)), "protocol": "HumanEval pass@1, greedy"}
