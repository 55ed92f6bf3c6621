from __future__ import annotations

from harness.data import prose

TOPIC = """Heading
*******

A *first* paragraph of running prose, which is broken over
two lines, and ends "like this*".

   for code in block:
       print(code)

stmt ::= "grammar" | other_rule

* a bullet is no paragraph of prose, however long it may well be here.

Short one.

   An indented paragraph of running prose that is long enough to stay **in**.
"""


def test_paragraphs_keep_prose_alone():
    assert list(prose.paragraphs(TOPIC)) == [
        'A first paragraph of running prose, which is broken over two lines, and ends "like this*".',
        "An indented paragraph of running prose that is long enough to stay in.",
    ]


def test_every_split_is_enough_for_a_tiny_perplexity():
    letters = {split: sum(len(row["text"]) for row in prose.rows(split)) for split in prose.SPLITS}
    assert letters["train"] > 60_000 and letters["validation"] > 8_000 and letters["test"] > 8_000
    assert all("\n" not in row["text"] for row in prose.rows("test"))
