from __future__ import annotations

from harness.data import wmt14

PAIR = {"translation": {"de": "Guten Morgen.", "en": "Good morning."}}


def test_rows_are_pairs_in_the_asked_direction(put):
    put("wmt/wmt14", {"de-en": {"validation": [PAIR]}})
    assert wmt14.rows("validation")[0] == {"source": "Good morning.", "target": "Guten Morgen."}
    assert wmt14.rows("validation", direction="de-en")[0] == {"source": "Guten Morgen.", "target": "Good morning."}
