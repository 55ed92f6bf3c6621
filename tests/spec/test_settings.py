from __future__ import annotations

from harness import rooms


def test_each_distinct_combination_is_resolved_once(registry, monkeypatch):
    asked = []
    resolve = rooms.resolve

    def counted(kind, text, where=None):
        asked.append((kind, str(text)))
        return resolve(kind, text, where)

    entry = registry.read(("grid:", f"seeds: {list(range(50))}\ngrid:\n  tune.lr: {[i / 100 for i in range(1, 21)]}"))
    monkeypatch.setattr(rooms, "resolve", counted)
    from harness.spec.grid import cells

    assert len(cells(entry)) == 1 + 2 + 50 * 20 * 2 * 2
    own = [one for one in asked if one[0] not in ("loss", "ramp")]  # which are bound besides
    assert len(own) == len(set(own))


def test_an_axis_over_models_or_tasks_reaches_every_section(registry):
    found = registry.cells(
        ("  tune.loss:", "  model: {a: org/a, b: org/b}\n  data: {x: pairs:size=1, y: pairs}\n  tune.loss:")
    )
    dense = {cell.label: cell for cell in found if cell.baseline == "dense"}
    assert list(dense) == ["a/x/dense", "a/y/dense", "b/x/dense", "b/y/dense"]
    assert dense["b/x/dense"].settings["model"] == "org/b"
    assert dense["b/x/dense"].settings["prepare"]["data"] == "pairs:size=1"
    assert dense["b/x/dense"].settings["evaluate"]["translation"]["data"] == "pairs:size=1"


def test_an_evaluation_may_be_an_axis(registry):
    found = registry.cells(("  tune.loss:", "  evaluate.translation.limit: [1, 2]\n  tune.loss:"))
    limits = {cell.label: cell.settings["evaluate"]["translation"]["limit"] for cell in found if cell.baseline}
    assert limits["1/dense"] == 1 and limits["0.5/2/one_shot"] == 2


def test_a_problem_points_at_the_layer_that_says_it(registry):
    scaled = ("grid:", "scales:\n  small:\n    tune.lr: -1\ngrid:")
    assert registry.one(scaled)[0] == 13
    arm = ("grid:", "grid:\n  arm:\n    a:\n      tune: {lr: -1}\n    b: null")
    assert registry.one(arm)[0] == 14
    model = ("grid:", "grid:\n  model: {a: org/a,\n    b: tiny/x}")
    assert registry.one(model)[0] == 13
