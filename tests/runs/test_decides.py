from __future__ import annotations

from pathlib import Path

import pytest

from harness import rooms
from harness.runs.decides import CALIBRATION, SEARCH, begins_with_gradients, calibrates, is_judged, split
from harness.spec.sections import Prune, Tune

VERBS = {"criterion": "score", "solver": "solve", "refiner": "refine", "allocation": "allocate"}
ASKED = {"data": "prose", "task": "language_modelling", "pattern": "unstructured", "sparsity": 0.5, "samples": 4}


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A prune section whose methods, by kind, need what is given: `section(criterion="weight norm")`."""

    def section(**needs: str) -> dict:
        for kind, verb in VERBS.items():
            folder = tmp_path / kind
            folder.mkdir(exist_ok=True)
            names = needs.get(kind, "weight").replace(" ", ", ")
            (folder / "mine.py").write_text(f'"""Mine."""\n\ndef {verb}({names}):\n    """Mine."""\n')
            monkeypatch.setitem(rooms.ROOMS, kind, rooms.Room(kind, str(folder), (verb,)))
        chosen = {kind: "mine" if kind in needs or kind == "allocation" else None for kind in VERBS}
        defaults = {name: field.get_default() for name, field in Prune.model_fields.items() if not field.is_required()}
        return {**defaults, **ASKED, **chosen}

    return section


@pytest.mark.parametrize(
    ("needs", "looks"),
    [
        ({"criterion": "weight"}, False),
        ({"criterion": "weight layer"}, False),
        ({"criterion": "weight norm"}, True),
        ({"criterion": "weight gradient"}, True),
        ({"solver": "weight choose sparsity period"}, False),
        ({"solver": "weight gram choose sparsity period"}, True),
        ({"criterion": "weight", "allocation": "layers sparsity weights"}, False),
        ({"criterion": "weight", "allocation": "layers sparsity scores"}, False),
        ({"criterion": "weight norm", "allocation": "layers sparsity scores"}, True),
        ({"criterion": "weight", "allocation": "layers sparsity norms"}, True),
        ({"criterion": "weight", "allocation": "layers sparsity kernels"}, True),
        ({"criterion": "weight norm", "allocation": "layers sparsity judge"}, True),
        ({"criterion": "weight", "refiner": "weight keep scores part period layer"}, False),
        ({"criterion": "weight", "refiner": "weight keep variance"}, True),
    ],
)
def test_calibration_decides_where_a_method_looks_at_data(section, needs, looks):
    options = section(**needs)
    decides, handling = split("prune", options)
    assert calibrates(options) == looks
    assert set(CALIBRATION) <= (decides if looks else handling).keys()
    assert {**decides, **handling}.keys() == options.keys()


@pytest.mark.parametrize(
    ("method", "begins"), [("lors", True), ("lors:init=kaiming", False), ("lora", False), ("masked", False)]
)
def test_a_method_begins_with_gradients_where_its_options_say_so(method, begins):
    assert begins_with_gradients({"method": method}) == begins


@pytest.mark.parametrize(("needs", "searches"), [("layers sparsity norms", False), ("layers sparsity judge", True)])
def test_what_is_held_out_decides_only_where_a_search_judges(section, needs, searches):
    decides, handling = split("prune", section(criterion="weight norm", allocation=needs))
    assert set(SEARCH) <= (decides if searches else handling).keys()


@pytest.mark.parametrize(
    ("own", "shared"),
    [
        ({}, {"data", "task"}),
        ({"search_data": "wikitext2"}, {"task"}),
        ({"search_task": "language_modelling:length=64,window=9"}, {"data"}),
        ({"search_data": "wikitext2", "search_task": "language_modelling:length=64,window=9"}, set()),
    ],
    ids=lambda value: "+".join(sorted(value)) or "none",
)
def test_a_search_without_calibration_decides_by_what_it_is_judged_on(section, own, shared):
    options = {**section(criterion="weight", allocation="layers sparsity judge"), **own}
    decides, handling = split("prune", options)
    assert is_judged(options) and not calibrates(options)
    assert set(CALIBRATION) & decides.keys() == {"batch_size", *shared}
    assert set(SEARCH) <= decides.keys() and {**decides, **handling}.keys() == options.keys()
    if "search_task" in own:
        assert decides["search_task"] == "language_modelling:length=64"  # the window is prediction's


def test_a_section_of_an_earlier_time_has_no_such_settings(section):
    later = (*SEARCH, "refiner", "start")
    options = {name: value for name, value in section(criterion="weight").items() if name not in later}
    decides, handling = split("prune", options)
    assert set(handling) == set(CALIBRATION) and "criterion" in decides


def test_a_later_option_of_training_enters_the_key_only_where_it_is_used():
    asked = {"data": "prose", "task": "language_modelling", "loss": "cross_entropy", "lr": 1e-3}
    options = Tune.model_validate({**asked, "steps": 3}).model_dump(mode="json")
    decides, handling = split("tune", options)
    assert {"tokens", "ramp", "restart", "last"} <= handling.keys() and "steps" in decides and "epochs" in decides
    decides, handling = split("tune", Tune.model_validate({**asked, "tokens": 300}).model_dump(mode="json"))
    assert decides["tokens"] == 300 and decides["steps"] is None and "ramp" in handling


def test_which_model_is_pruned_is_told_by_the_parent_alone(section):
    decides, handling = split("prune", section(criterion="weight") | {"start": "base"})
    assert handling["start"] == "base" and "start" not in decides


def test_an_option_that_a_loss_gained_is_no_part_of_the_key_at_its_default():
    asked = {"data": "prose", "task": "language_modelling", "steps": 2, "lr": 1e-3}

    def key(loss):
        return split("tune", Tune.model_validate({**asked, "loss": loss}).model_dump(mode="json"))[0]["loss"]

    first = "0.5*cross_entropy + squarehead:eps=1e-09,final=norm"
    assert key("0.5*cross_entropy + squarehead:eps=1e-9") == first
    assert key("0.5*cross_entropy + squarehead:eps=1e-9,tokens=valid,layers=sum,distance=normalised") == first
    assert key("0.5*cross_entropy + squarehead:eps=1e-9,distance=mse") == f"{first},distance=mse"
    assert key("cross_entropy + kl:temperature=2") == "cross_entropy + kl:temperature=2.0"
