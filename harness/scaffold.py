"""`harness add`: a new experiment, criterion, loss or metric with its test, as a working start to edit.

What is written passes `harness check` and the contract tests as it stands, so that every later edit starts from green.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from harness.problems import Problem, unknown
from harness.rooms import PACKAGE, ROOMS

_EXPERIMENT = Template('''\
# harness run $name            (a start: the quickstart's shape; edit what differs)
title: $title
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
''')

_METHODS = {
    "criterion": (
        Template('''\
"""$Title: the magnitude of a weight, to begin with.

    score = |W|

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

import torch

GROUP = "matrix"
"""The weights compared with one another: "matrix" or "row"."""


def score(weight: torch.Tensor) -> torch.Tensor:
    """Scores weights by their magnitude.

    Args:
        weight: [out, in].

    Returns:
        The scores, [out, in]; the lowest are pruned.
    """
    return weight.abs()
'''),
        Template('''\
from __future__ import annotations

import torch

from harness.pruning.criteria import $name


def test_a_case_worked_by_hand():
    weight = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert $name.score(weight).tolist() == [[1.0, 2.0], [0.0, 3.0]]
'''),
    ),
    "loss": (
        Template('''\
"""$Title: squared error of the logits, to begin with.

    L = mean over scored positions of (z_student - z_teacher)^2

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

import torch

from harness.tuning.forward import Forward


def loss(student: Forward, teacher: Forward, *, scale: float = 1.0) -> torch.Tensor:
    """Squared error of the student's logits against the teacher's.

    Args:
        student: Its forward result; logits [batch, positions, vocabulary].
        teacher: The dense model's, same shapes.
        scale: A factor on the error.

    Returns:
        A scalar.
    """
    return scale * (student.logits - teacher.logits).square().mean()
'''),
        Template('''\
from __future__ import annotations

from types import SimpleNamespace

import torch

from harness.tuning.losses import $name


def test_a_case_worked_by_hand():
    student = SimpleNamespace(logits=torch.tensor([[[1.0, 3.0]]]))
    teacher = SimpleNamespace(logits=torch.tensor([[[0.0, 1.0]]]))
    assert $name.loss(student, teacher).item() == 2.5
    assert $name.loss(student, teacher, scale=2.0).item() == 5.0
'''),
    ),
    "metric": (
        Template('''\
"""$Title: the share of predictions equal to their reference, to begin with.

Say here: source, protocol, and what is done differently and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.metrics import Score


def score(rows: Iterable[Mapping[str, Any]], *, strip: bool = True) -> dict[str, Score]:
    """Share of predictions equal to their reference, in percent.

    Args:
        rows: Prediction rows with the strings `prediction` and `reference`.
        strip: Whether white space around both is ignored.

    Returns:
        One score, with its binomial standard error.
    """
    clean = str.strip if strip else str
    hits = [clean(row["prediction"]) == clean(row["reference"]) for row in rows]
    share = sum(hits) / len(hits)
    error = math.sqrt(share * (1 - share) / max(len(hits) - 1, 1))
    return {"$name": Score(100 * share, 100 * error, len(hits), f"$name,strip={strip}", True)}
'''),
        Template('''\
from __future__ import annotations

from harness.metrics import $name


def test_a_case_worked_by_hand():
    rows = [{"prediction": "a ", "reference": "a"}, {"prediction": "b", "reference": "c"}]
    assert $name.score(rows)["$name"].value == 50.0
    assert $name.score(rows, strip=False)["$name"].value == 0.0
'''),
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
    words = {"name": name, "title": name.rpartition("/")[2].replace("-", " "), "Title": name.replace("_", " ").capitalize()}
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
