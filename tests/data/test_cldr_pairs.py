from __future__ import annotations

import re

import pytest

from harness.data import cldr_pairs
from harness.data._cldr import phrases
from harness.problems import Problem

BY_HAND = {
    "Germany": "Deutschland",
    "May 22": "22. Mai",
    "3:05 PM": "15:05",
    "12:00 AM": "00:00",
    "in 3 days": "in 3 Tagen",
    "3 days ago": "vor 3 Tagen",
    "1 kilometer": "1 Kilometer",
    "1.5 hours": "1,5 Stunden",
    "1 euro": "1 Euro",
    "2.50 US dollars": "2,50 US-Dollar",
    "German (Austria)": "Deutsch (Österreich)",
    "Saturday, January 1, 2000": "Samstag, 1. Januar 2000",
    "Jan 1, 2000": "01.01.2000",
    "1st quarter 2000": "1. Quartal 2000",
}


def test_pairs_are_those_a_german_would_write():
    said = {english: german for english, german, _ in phrases()}
    assert {english: said.get(english) for english in BY_HAND} == BY_HAND
    lists = [(e, g) for e, g in said.items() if re.fullmatch(r"\w+, \w+, and \w+", e)]
    assert lists and all(re.fullmatch(r"[\w ]+, [\w ]+ und [\w ]+", german) for _, german in lists)


def test_no_phrase_is_said_twice_or_holds_odd_spaces():
    english = [phrase[0] for phrase in phrases()]
    assert len(set(english)) == len(english)
    assert not [text for phrase in phrases() for text in phrase[:2] if re.search(r"[^\S ]|  |^ | $", text)]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("size", [200, 4000])
def test_every_atom_of_a_held_out_pair_is_in_training(split, size):
    for side in ("source", "target"):
        known = {word for row in cldr_pairs.rows("train", size=size) for word in re.findall(r"\w+", row[side])}
        assert not {word for row in cldr_pairs.rows(split) for word in re.findall(r"\w+", row[side])} - known


def test_held_out_pairs_are_compositions_and_do_not_depend_on_size():
    atoms = {english for english, _, atom in phrases() if atom}
    assert len(atoms) > 50
    held_out = list(cldr_pairs.rows("test", size=1000))
    assert len(held_out) == 250 and not atoms & {row["source"] for row in held_out}
    assert list(cldr_pairs.rows("test", size=3000)) == held_out
    assert list(cldr_pairs.rows("train", size=1000)) == list(cldr_pairs.rows("train"))[:1000]


def test_size_must_cover_every_word():
    with pytest.raises(Problem, match="should lie between"):
        cldr_pairs.rows("train", size=10)
