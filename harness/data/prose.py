"""English prose that ships with Python: the language reference in `pydoc_data.topics`, for perplexity.

A row is one paragraph, in the order of its topic; whole topics are dealt to the splits by a hash of their name.
Headings, code, grammar and lists are left out, emphasis marks removed, lines joined. A paragraph that stands in two
topics stays only where it comes first, so the splits share none. The text changes with the Python version, which is
the revision.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from functools import cache

from harness.data._rows import Rows, check_splits, split_of
from harness.sources import Source, generated

KIND = "text"
SPLITS = ("train", "validation", "test")
VERSION = "1"
EMPHASIS = re.compile(r"""(?<![\w"*])(\*{1,2})(?=\S)([^*"]+?)\1(?![\w"])""")


def source(splits: Sequence[str] = ()) -> Source:
    """The running Python's topics; raises a `Problem` for an unknown split."""
    check_splits("prose", splits, SPLITS)
    return generated("prose", f"{VERSION}+python-{platform.python_version()}")


def rows(split: str) -> Rows:
    """Paragraphs of the Python language reference (ships with Python).

    Args:
        split: train, validation or test.
    """
    check_splits("prose", [split], SPLITS)
    return Rows(_splits()[split], _row)


def _row(paragraph: str) -> dict[str, str]:
    return {"text": paragraph}


@cache
def _splits() -> dict[str, list[str]]:
    from pydoc_data.topics import topics

    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for name in sorted(topics):
        for paragraph in paragraphs(topics[name]):
            if paragraph not in seen:
                seen.add(paragraph)
                found[split_of(name)].append(paragraph)
    return found


def paragraphs(topic: str) -> Iterator[str]:
    """Yields a topic's paragraphs of running prose, each on one line."""
    for block in re.split(r"\n\s*\n", topic):
        text = " ".join(EMPHASIS.sub(r"\2", block).split())
        prose = sum(character.isalpha() or character == " " for character in text) > 0.85 * len(text)
        if prose and len(text) >= 60 and text[0].isupper() and text[-1] in ".:!?":
            yield text
