"""Templates of word problems: a story, the numbers it may have, and the steps that solve it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.data._rows import share

NAMES = "Ada Ben Clara Emil Ida Jonas Lena Max Nora Omar Pia Sam"
THINGS = "apples beads books buttons cards coins marbles shells stamps tickets"
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
RESULTS = "xyz"
"""The names that later steps have for the results of earlier ones."""


@dataclass(frozen=True)
class Story:
    """A template.

    Attributes:
        question: With `{name}`, `{other}`, `{thing}` and the numbers `{a}`, `{b}`, `{c}`.
        numbers: The values that a, b and c may take.
        steps: Each a sentence with `{sum}` for its calculation, and the calculation over a, b, c and the results x, y.
    """

    question: str
    numbers: tuple[Sequence[int], ...]
    steps: tuple[tuple[str, str], ...]


SMALL, LARGE = range(2, 10), range(2, 21)
STORIES = (
    Story(
        "{name} has {a} {thing} and finds {b} more. How many {thing} does {name} have now?",
        (LARGE, LARGE),
        (("{name} has {sum} {thing}.", "a + b"),),
    ),
    Story(
        "{name} has {a} {thing} and gives {b} of them to {other}. How many {thing} does {name} keep?",
        (LARGE, LARGE),
        (("{name} keeps {sum} {thing}.", "a - b"),),
    ),
    Story(
        "{name} fills {a} boxes with {b} {thing} each. How many {thing} are in the boxes?",
        (LARGE, SMALL),
        (("There are {sum} {thing} in the boxes.", "a * b"),),
    ),
    Story(
        "{name} shares {a} {thing} equally among {b} friends. How many {thing} does each friend get?",
        (range(4, 82), SMALL),
        (("Each friend gets {sum} {thing}.", "a / b"),),
    ),
    Story(
        "{name} buys {a} bags with {b} {thing} each and loses {c} {thing}. How many {thing} are left?",
        (SMALL, SMALL, SMALL),
        (("{name} buys {sum} {thing}.", "a * b"), ("{sum} {thing} are left.", "x - c")),
    ),
    Story(
        "{name} collects {a} {thing} on Monday and {b} on Tuesday. {other} collects {c} times as many as {name}. "
        "How many {thing} does {other} collect?",
        (SMALL, SMALL, range(2, 6)),
        (("{name} collects {sum} {thing}.", "a + b"), ("{other} collects {sum} {thing}.", "x * c")),
    ),
    Story(
        "A lamp costs {a} dollars and a candle costs {b} dollars. {name} buys one lamp and {c} candles. "
        "How many dollars does {name} pay?",
        (LARGE, SMALL, SMALL),
        (("The candles cost {sum} dollars.", "b * c"), ("{name} pays {sum} dollars.", "a + x")),
    ),
    Story(
        "{name} reads {a} pages a day for {b} days. The book has {c} pages. How many pages are left to read?",
        (SMALL, SMALL, range(20, 101, 10)),
        (("{name} reads {sum} pages.", "a * b"), ("{sum} pages are left to read.", "c - x")),
    ),
    Story(
        "{name} has {a} {thing}. {other} has {b} more than {name}. How many {thing} do they have together?",
        (LARGE, LARGE),
        (("{other} has {sum} {thing}.", "a + b"), ("Together they have {sum} {thing}.", "a + x")),
    ),
    Story(
        "{name} has {a} {thing}, sells half of them and then buys {b} more. How many {thing} does {name} have now?",
        (range(4, 41), SMALL),
        (
            ("{name} sells {sum} {thing}.", "a / 2"),
            ("{name} keeps {sum} {thing}.", "a - x"),
            ("{name} has {sum} {thing}.", "y + b"),
        ),
    ),
)


def solved(story: Story, numbers: Sequence[int]) -> list[tuple[str, int]] | None:
    """Returns each step's calculation (`3+4`) and result; None if one is not a positive whole number."""
    values = dict(zip("abc", numbers, strict=False))
    steps = []
    for name, (_, calculation) in zip(RESULTS, story.steps, strict=False):
        left, sign, right = calculation.split()
        one, two = (values[part] if part.isalpha() else int(part) for part in (left, right))
        if sign == "/" and one % two:
            return None
        values[name] = OPERATORS[sign](one, two)
        if values[name] <= 0:
            return None
        steps.append((f"{one}{sign}{two}", values[name]))
    return steps


def dressed(story: Story, numbers: Sequence[int], steps: Sequence[tuple[str, int]], key: str) -> tuple[str, str]:
    """Returns question and answer, with names and things drawn by the hash of `key`."""
    words: Mapping[str, object] = dict(zip("abc", numbers, strict=False)) | _cast(key)
    lines = []
    for (sentence, _), (calculation, result) in zip(story.steps, steps, strict=True):
        lines.append(sentence.format(sum=f"{_spaced(calculation)} = <<{calculation}={result}>>{result}", **words))
    return story.question.format(**words), "\n".join([*lines, f"#### {steps[-1][1]}"])


def _cast(key: str) -> dict[str, str]:
    name = _drawn(NAMES.split(), f"name {key}")
    other = _drawn([n for n in NAMES.split() if n != name], f"other {key}")
    return {"name": name, "other": other, "thing": _drawn(THINGS.split(), f"thing {key}")}


def _drawn(words: Sequence[str], key: str) -> str:
    return words[int(share(key) * len(words))]


def _spaced(calculation: str) -> str:
    return "".join(c if c.isdigit() else f" {c} " for c in calculation)
