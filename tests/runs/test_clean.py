from __future__ import annotations

from harness.runs import clean, freeing


def _names(found):
    return sorted(f"{folder.parent.name} {folder.name.rpartition('-')[0]}" for folder in found)


def test_what_nothing_has_still_to_read_is_idle(fake, heavy):
    cells = fake.cells(heavy, fail_at=1, fail="error")
    fake.run(*cells)  # the tune of 0.5 fails: its prune, and the dense model, are read once more
    assert _names(clean.idle(fake.plan(*cells), fake.store)) == ["prune 0.75", "tune 0.75"]
    assert _names(clean.idle(fake.plan(cells[1]), fake.store)) == ["prepare prepare", "prune 0.75", "tune 0.75"]


def test_what_is_freed_counts_as_done_and_is_not_freed_twice(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells)
    found = clean.idle(fake.plan(*cells), fake.store)
    assert len(found) == 5
    assert all(0 < size - clean.remove(folder) < 100 for folder, size in found.items())
    planned = fake.plan(*cells)
    assert planned.counts == {"freed": 5, "cached": 2} and planned.lacking == ()
    assert clean.idle(planned, fake.store) == {}


def test_results_and_work_of_nobody(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells)
    stranger = fake.compute(fake.stage("tune", slug="older", **heavy))
    idle, busy = (fake.store.begin(fake.stage("tune", slug=slug)) for slug in ("left", "busy"))
    for work in (idle, busy):
        (work.scratch / "step").write_bytes(b"x" * 2000)
    idle.release()
    left = idle.folder.parent
    found = clean.others(fake.plan(*cells), fake.store)
    assert found.keys() == {stranger, left} and found[left] == 2000
    assert [clean.remove(folder) for folder in (left, stranger)] == [2000, found[stranger] - 70]
    assert not left.exists() and freeing.is_freed(stranger)
    assert clean.remove(busy.folder.parent) == 0 and busy.scratch.is_dir()
    busy.release()


def test_work_that_a_plan_asks_for_stays(fake):
    cells = fake.cells()
    fake.store.begin(cells[0].stages["tune"]).release()
    assert clean.others(fake.plan(*cells), fake.store) == {}
