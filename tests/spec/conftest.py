from __future__ import annotations

import textwrap

import pytest

from harness import rooms
from harness.problems import Problem
from harness.spec import entry as spec
from harness.spec.grid import cells

FILES = {
    "models/t5.py": 'MODEL_TYPES = ("t5",)\nTASKS = ("translation", "zero_shot")\ndef blocks(model):\n    ...',
    "models/mpt.py": 'MODEL_TYPES = ("mpt",)\nTASKS = ("modelling", "zero_shot")\ndef blocks(model):\n    ...',
    "data/pairs.py": 'KIND = "translation"\ndef rows(split, *, size: int = 100):\n    ...',
    "data/books.py": 'KIND = "text"\ndef rows(split):\n    ...',
    "tasks/translation.py": (
        'READS = "translation"\nMETRIC = "bleu"\ndef examples(rows, *, max_source: int = 64):\n    ...\n'
        "def predict(model, *, beams: int = 5):\n    ..."
    ),
    "tasks/modelling.py": (
        'READS = "text"\nMETRIC = "perplexity"\ndef examples(rows):\n    ...\ndef predict(model):\n    ...'
    ),
    "tasks/zero_shot.py": 'READS = None\nMETRIC = "accuracy"\ndef predict(model, *, tasks: str = "a+b"):\n    ...',
    "metrics/bleu.py": "def score(rows):\n    ...",
    "metrics/chrf.py": 'TASKS = ("translation",)\ndef score(rows):\n    ...',
    "metrics/perplexity.py": "def score(rows):\n    ...",
    "metrics/accuracy.py": 'def score(rows, *, measure: str = "acc"):\n    ...',
    "pruning/criteria/magnitude.py": "def score(weight):\n    ...",
    "pruning/criteria/wanda.py": "def score(weight, norm):\n    ...",
    "pruning/solvers/sparsegpt.py": "def solve(weight, gram, choose, sparsity, *, block: int = 128):\n    ...",
    "pruning/patterns/unstructured.py": "def choose(scores, sparsity):\n    ...",
    "pruning/patterns/nm.py": 'PERIOD = "m"\ndef choose(scores, sparsity, *, n: int = 2, m: int = 4):\n    ...',
    "pruning/allocation/uniform.py": "def allocate(layers, sparsity):\n    ...",
    "pruning/ramps/one_shot.py": "def targets(sparsity):\n    ...",
    "tuning/methods/lora.py": "MERGES = False\ndef prepare(model):\n    ...",
    "tuning/methods/masked.py": "def prepare(model):\n    ...",
    "tuning/losses/cross_entropy.py": "def loss(student):\n    ...",
    "tuning/losses/kl.py": "def loss(student, teacher, *, temperature: float = 1.0):\n    ...",
    "tuning/losses/squarehead.py": "def loss(student, teacher, *, eps: float = 0.01):\n    ...",
    "tuning/schedules/linear.py": "def factor(step, total, warmup):\n    ...",
    "tuning/schedules/cosine.py": "def factor(step, total, warmup):\n    ...",
}

GOOD = """\
title: a table
model: org/t5
data: pairs
task: translation
prepare: {epochs: 1, lr: 1e-3}
prune: {solver: sparsegpt}
tune:
  loss: cross_entropy
  epochs: 2
  lr: 1e-4
grid:
  prune.sparsity: [0.5, 0.75]
  tune.loss: {ce: cross_entropy, sh: cross_entropy + squarehead}
"""


@pytest.fixture(autouse=True)
def house(tmp_path, monkeypatch):
    """Rooms of the spec tests' own, so that these tests depend on no method of the harness."""
    package = tmp_path / "package"
    for name, text in FILES.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf8")
    monkeypatch.setattr(rooms, "PACKAGE", package)


class Registry:
    """An experiments folder of one entry `x`, by default `GOOD` with texts replaced."""

    def __init__(self, root):
        self.root = root
        self.root.mkdir()

    def write(self, text: str = GOOD, *replacements: tuple[str, str]) -> None:
        text = textwrap.dedent(text)
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (self.root / "x.yaml").write_text(text, encoding="utf8")

    def read(self, *replacements, text: str = GOOD, scale: str | None = None, set=()):
        self.write(text, *replacements)
        return spec.read("x", scale, root=self.root, set=set)

    def cells(self, *replacements, **options):
        return cells(self.read(*replacements, **options))

    def check(self, *replacements, text: str = GOOD) -> list[Problem]:
        self.write(text, *replacements)
        return spec.check("x", root=self.root)

    def one(self, *replacements, text: str = GOOD) -> tuple[int, Problem]:
        """Returns the line and the problem of an entry with exactly one."""
        found = self.check(*replacements, text=text)
        assert len(found) == 1, [str(problem) for problem in found]
        file, _, line = found[0].where.rpartition(":")
        assert file.endswith("x.yaml")
        return int(line), found[0]


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "experiments")
