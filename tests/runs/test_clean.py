from __future__ import annotations

from harness.runs import clean, freeing


def _names(found):
    return sorted(f"{folder.parent.name} {folder.name.rpartition('-')[0]}" for folder in found)


def _idle(fake, cells, among=None):
    planned = fake.plan(*cells)
    return clean.idle(planned, fake.store, planned.stages if among is None else among.needs)


def test_what_nothing_has_still_to_read_is_idle(fake, heavy):
    cells = fake.cells(heavy, fail_at=1, fail="error")
    fake.run(*cells)  # the tune of 0.5 fails: its prune, and the dense model, are read once more
    assert _names(_idle(fake, cells)) == ["prune 0.75", "tune 0.75"]
    assert _names(_idle(fake, cells, among=cells[1])) == ["prune 0.75", "tune 0.75"]  # another cell reads prepare
    assert _names(_idle(fake, cells, among=cells[0])) == []


def test_what_is_freed_counts_as_done_and_is_not_freed_twice(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells)
    found = _idle(fake, cells)
    assert len(found) == 5 and all(size > 4096 for size in found.values())
    assert clean.free(found) == []
    planned = fake.plan(*cells)
    assert planned.counts == {"freed": 5, "cached": 2} and planned.lacking == ()
    assert _idle(fake, cells) == {}


def test_one_that_cannot_be_freed_stops_no_other(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells)
    found = _idle(fake, cells)
    bad = fake.store.folder(cells[0].stages["prune"])
    (bad / "model.safetensors").write_bytes(b"\xff" * 5000)
    (problem,) = clean.free(found)
    assert str(bad) in str(problem) and not freeing.is_freed(bad)
    assert sum(freeing.is_freed(folder) for folder in found) == 4
