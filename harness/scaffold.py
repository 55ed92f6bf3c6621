"""`harness add`: a new experiment, criterion, loss or metric with its test, as a working start to edit.

What is written passes `harness check` and the contract tests as it stands, so that every later edit starts from green.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from harness.problems import Problem, unknown
from harness.rooms import PACKAGE, ROOMS

_EXPERIMENT = Template("""\
# harness run $name            (a start: the quickstart's shape; edit what differs)
title: $Title
model: google-t5/t5-small
data: wmt14
task: translation
prepare: {epochs: 1, lr: 1e-3, batch_size: 32}
prune: {criterion: magnitude, pattern: unstructured, sparsity: 0.5}
tune: {method: masked, loss: cross_entropy, epochs: 1, lr: 1e-3, batch_size: 32}
grid:
  prune.sparsity: [0.5, 0.75]
  tune.loss: {cross_entropy: cross_entropy, squarehead: "cross_entropy + squarehead:eps=1e-9"}
seeds: [0]
scales:
  tiny:
    model: tiny/t5
    data: cldr_pairs
    prepare: {epochs: null, steps: 100}
    tune: {epochs: null, steps: 20}
    evaluate: {bleu: {task: translation, data: cldr_pairs, limit: 32}}
""")

_METHODS = {
    "criterion": (
        Template('''\
"""$Title: score = |w|, to begin with.

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from torch import Tensor

GROUP = "matrix"


def score(weight: Tensor) -> Tensor:
    """$Title: the absolute weight, to begin with.

    Args:
        weight: [out, in].

    Returns:
        Scores [out, in], float32; the lowest of a row or of the whole matrix (GROUP) are pruned.
    """
    return weight.float().abs()
'''),
        Template("""\
from __future__ import annotations

import torch

from harness.pruning.criteria import $name


def test_a_case_worked_by_hand():
    weight = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert $name.score(weight).tolist() == [[1.0, 2.0], [0.0, 3.0]]
"""),
    ),
    "loss": (
        Template('''\
"""$Title: squared error of the logits, to begin with.

    L = scale * mean over the answer of (z_student - z_teacher)^2

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from torch import Tensor

from harness.tuning.forward import Forward


def loss(student: Forward, teacher: Forward, *, scale: float = 1.0) -> dict[str, Tensor]:
    """$Title: squared error of the logits, to begin with.

    Args:
        student: The student's result; logits [batch, time, vocabulary].
        teacher: The teacher's result on the same batch.
        scale: A factor on the error.
    """
    difference = (student.logits - teacher.logits)[student.answer].float()
    return {"answer": scale * difference.square().mean()}
'''),
        Template("""\
from __future__ import annotations

from types import SimpleNamespace

import torch

from harness.tuning.losses import $name


def test_a_case_worked_by_hand():
    answer = torch.tensor([[True, False]])
    student = SimpleNamespace(logits=torch.tensor([[[1.0, 3.0], [9.0, 9.0]]]), answer=answer)
    teacher = SimpleNamespace(logits=torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), answer=answer)
    assert $name.loss(student, teacher)["answer"].item() == 2.5
    assert $name.loss(student, teacher, scale=2.0)["answer"].item() == 5.0
"""),
    ),
    "metric": (
        Template('''\
"""$Title: the share of predictions equal to their reference, to begin with.

Say here: source, protocol, and what is done differently and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import evaluate

from harness.metrics import Score, mean
from harness.metrics._compute import columns, compute, text_pairs


class Equal(evaluate.Metric):
    """$Title as an `evaluate` metric: one reference per prediction."""

    def _info(self) -> evaluate.MetricInfo:
        return text_pairs("Share of equal strings.", "")

    def _compute(self, predictions, references) -> dict[str, Any]:
        value, error = mean([100.0 * (p == r) for p, r in zip(predictions, references, strict=True)])
        return {"value": value, "stderr": error}


def score(rows: Iterable[Mapping[str, Any]], *, strip: bool = True) -> dict[str, Score]:
    """$Title: the share of equal predictions in percent, to begin with.

    Args:
        rows: Prediction rows with the strings `prediction` and `reference`.
        strip: Whether white space around both is ignored.
    """
    predictions, references = columns(rows, "prediction", "reference")
    if strip:
        predictions, references = [p.strip() for p in predictions], [r.strip() for r in references]
    found = compute(Equal, predictions=predictions, references=references)
    return {"$name": Score(found["value"], found["stderr"], len(predictions), f"$name,strip={strip}", True)}
'''),
        Template("""\
from __future__ import annotations

from harness.metrics import $name


def test_a_case_worked_by_hand():
    rows = [{"prediction": "a ", "reference": "a"}, {"prediction": "b", "reference": "c"}]
    assert $name.score(rows)["$name"].value == 50.0
    assert $name.score(rows, strip=False)["$name"].value == 0.0
"""),
    ),
}

KINDS = ("experiment", *_METHODS)


def add(kind: str, name: str, root: Path) -> list[Path]:
    """Writes a new experiment or method with its test.

    Args:
        kind: One of `KINDS`.
        name: `paper/table` for an experiment, a Python name for a method.
        root: The checkout: the folder of `experiments/`, `harness/` and `tests/`.

    Returns:
        The files written.

    Raises:
        Problem: The kind is unknown, the name is no name, or a file is there already.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    pattern = r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*" if kind == "experiment" else r"[a-z][a-z0-9_]*"
    if not re.fullmatch(pattern, name):
        raise Problem(f"{name!r} is no name for a new {kind}", hint="use small letters, digits and _, as in wanda")
    title = name.rpartition("/")[2].replace("-", " ").replace("_", " ").capitalize()
    words = {"name": name, "Title": title}
    if kind == "experiment":
        texts = {root / "experiments" / f"{name}.yaml": _EXPERIMENT}
    else:
        module, test = _METHODS[kind]
        folder = Path(ROOMS[kind].folder)
        texts = {PACKAGE / folder / f"{name}.py": module, root / "tests" / folder / f"test_{name}.py": test}
    for path in texts:
        if path.exists():
            raise Problem(f"{path} is there already", hint="choose another name, or edit it")
    for path, template in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.substitute(words), encoding="utf8")
    return list(texts)
