from __future__ import annotations

from harness.stages import _examples


def test_the_first_rows_of_a_split_are_read_lazily(monkeypatch):
    asked = []

    class Spy(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr(_examples.rooms, "bind", lambda kind, text: lambda split: Spy([split, "b", "c"]))
    rows = _examples.rows_for({"data": "prose", "split": "train", "rows": 2})
    assert len(rows) == 2 and not asked
    assert rows[0] == "train" and asked == [0]
    assert len(_examples.rows_for({"data": "prose", "split": "train", "rows": 9})) == 3
