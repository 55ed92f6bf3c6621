from __future__ import annotations

from harness.data import wordplay


def test_responses_are_right():
    found = {row["instruction"]: row["response"] for split in wordplay.SPLITS for row in wordplay.rows(split)}
    for asked, said in found.items():
        words = asked.replace(",", " ").replace(".", " ").replace("?", " ").split()
        if asked.startswith("Which"):
            one, two = words[4], words[6]
            assert said == (one if len(one) > len(two) else two if len(two) > len(one) else "They are as long.")
        elif asked.startswith("Join"):
            assert said == words[5][0] + words[7][0] or said == words[-3][0] + words[-1][0]
        elif asked.startswith("Put"):
            assert said.split(", ") == sorted(words[5:])
        else:
            assert said == f"{'-'.join(words[1])} {words[-1]}"


def test_there_is_some_of_each_in_every_split():
    for split in wordplay.SPLITS:
        first = {row["instruction"].split()[0] for row in wordplay.rows(split)}
        assert first == {"Which", "Join", "Spell", "Put"} and len(wordplay.rows(split)) >= 200
