"""The rooms: a file added to a folder is a method, read without importing it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from harness import rooms
from harness.problems import Problem
from harness.rooms import ROOMS, Choice, Room, bind, parse, resolve, resolve_terms

MODULE = '''
"""Module help."""

from harness.metrics import HEADLINE
from typing import Literal

GROUP = "row"
NOT_LITERAL = len("x")


def score(weight, norm, *, power: float = 1.0, steps: int = 3, note: str | None = None,
          kind: Literal["a", "bee", "none"] = "a"):
    """One line of help.

    More.
    """
'''


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A room of its own in a folder outside the package, with one method in it."""
    (tmp_path / "scaled.py").write_text(MODULE)
    (tmp_path / "_shared.py").write_text("")
    (tmp_path / "folder.py").mkdir()
    hidden = tmp_path.parent / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "scaled.py").write_text(MODULE)
    room = Room("toy", str(tmp_path), ("score", "extra"))
    monkeypatch.setitem(ROOMS, "toy", room)
    return room


def test_a_file_is_a_method_and_its_signature_the_options(room):
    assert room.names() == ("scaled",)
    with pytest.raises(Problem, match="unknown toy 'folder'"):
        room.method("folder")
    method = room.method("scaled")
    assert method.summary == "One line of help."
    assert method.needs == ("weight", "norm")
    assert {o.name: o.default for o in method.options.values()} == {"power": 1.0, "steps": 3, "note": None, "kind": "a"}
    assert method.constants == {"GROUP": "row"}
    assert method.line == 11


def test_a_changed_file_is_read_again(room, tmp_path):
    room.method("scaled")
    path = tmp_path / "scaled.py"
    path.write_text(MODULE.replace("One line", "Another line"))
    import os

    os.utime(path, ns=(1, 1))
    assert room.method("scaled").summary == "Another line of help."


def test_resolve_writes_every_default_out_and_is_stable(room):
    choice = resolve("toy", "scaled:steps=5,power=2")
    assert str(choice) == "scaled:power=2.0,steps=5,note=none,kind=a"
    assert resolve("toy", str(choice)) == choice
    assert hash(resolve("toy", str(choice))) == hash(choice)
    assert resolve("toy", "scaled:kind=none").options["kind"] == "none"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scald", ["unknown toy 'scald'", "did you mean 'scaled'?", "there is: scaled"]),
        ("_shared", ["unknown toy '_shared'"]),
        ("../hidden/scaled", ["unknown toy '../hidden/scaled'", "there is: scaled"]),
        ("sca\0led", ["unknown toy"]),
        ("", ["unknown toy ''"]),
        ("scaled:powr=2", ["no option 'powr'", "did you mean 'power'?"]),
        ("scaled:steps=1.5", ["steps=1.5 should be int"]),
        ("scaled:steps=true", ["steps=true should be int"]),
        ("scaled:power=big", ["power=big should be float"]),
        ("scaled:kind=be", ["kind=be", "did you mean 'bee'?", "it may be: a, bee, none"]),
        ("scaled:steps", ["cannot read 'steps'"]),
        ("scaled:steps=1,steps=2", ["given twice"]),
    ],
)
def test_a_wrong_choice_names_the_place_and_the_nearest(room, text, words):
    with pytest.raises(Problem) as caught:
        resolve("toy", text, where="entry.yaml:3")
    assert str(caught.value).startswith("entry.yaml:3: ")
    for word in words:
        assert word in str(caught.value)


def test_an_option_of_another_method_of_the_recipe_is_shown_where_it_is():
    with pytest.raises(Problem, match="criterion 'magnitude' has no option 'as_released'") as caught:
        resolve("criterion", "magnitude:as_released=true")
    hint = caught.value.hint
    assert hint.startswith("its options: none; others have it: pattern unstructured:as_released=true, ")
    resolve("pattern", "unstructured:as_released=true")
    with pytest.raises(Problem, match="data 'c4' has no option 'length'") as caught:
        resolve("data", "c4:length=64")
    assert "task language_modelling:length=64" in caught.value.hint and "criterion" not in caught.value.hint


def test_a_required_option_must_be_given(room, tmp_path):
    (tmp_path / "strict.py").write_text("def score(weight, *, n: int):\n    'Help.'\n")
    with pytest.raises(Problem, match="needs the option 'n'"):
        resolve("toy", "strict")
    assert resolve("toy", "strict:n=2").options == {"n": 2}


def test_verbs_of_one_file_share_one_set_of_options(room, tmp_path):
    (tmp_path / "two.py").write_text("def score(w, *, a=1): 'H.'\ndef extra(w, *, a=1, b=2): 'H.'\n")
    assert resolve("toy", "two").options == {"a": 1, "b": 2}
    (tmp_path / "clash.py").write_text("def score(w, *, a=1): 'H.'\ndef extra(w, *, a=2): 'H.'\n")
    with pytest.raises(Problem, match="two defaults: 1 and 2"):
        resolve("toy", "clash")
    (tmp_path / "typed.py").write_text("def score(w, *, a: int = 1): 'H.'\ndef extra(w, *, a: Count = 1): 'H.'\n")
    with pytest.raises(Problem, match="two annotations: int and Count"):
        resolve("toy", "typed")


def test_a_file_without_the_rooms_verb_is_a_problem(room, tmp_path):
    (tmp_path / "empty.py").write_text("def other(): pass\n")
    with pytest.raises(Problem, match="defines no function 'score'"):
        resolve("toy", "empty")


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("def score(w):\n    return (\n", 2, "'broken' is no Python: '(' was never closed"),
        ("x = '\0'\n", None, "'broken' is no Python"),
        ("# \xff\n", None, "'broken' is no Python"),
    ],
)
def test_a_file_that_is_no_python_is_a_problem_with_its_line(room, tmp_path, source, line, said):
    (tmp_path / "broken.py").write_bytes(source.encode("latin1"))
    with pytest.raises(Problem) as caught:
        resolve("toy", "broken")
    assert said in caught.value.what and str(tmp_path / "broken.py") in caught.value.where
    assert line is None or caught.value.where.endswith(f":{line}")


RANGED = """
def score(w, *, beams: Count = 5, damping: NonNegative = 0.01, width: Positive | None = None, rate: Sparsity = 0.5):
    'H.'
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beams=0", "option beams=0 should be at least 1"),
        ("beams=true", "option beams=true should be int"),
        ("beams=1e3", "option beams=1000.0 should be int"),
        ("damping=-1", "option damping=-1 should be at least 0"),
        ("damping=inf", "option damping=inf should be a finite number"),
        ("damping=1" + 400 * "0", "should be a finite number"),
        ("damping=low", "option damping=low should be float"),
        ("width=0", "option width=0 should be above 0 or none"),
        ("width=wide", "option width=wide should be float or none"),
        ("rate=1", "option rate=1 should be at least 0 and below 1"),
    ],
)
def test_an_option_is_in_its_range(room, tmp_path, text, said):
    (tmp_path / "ranged.py").write_text(RANGED)
    with pytest.raises(Problem) as caught:
        resolve("toy", f"ranged:{text}")
    assert caught.value.what.endswith(said)


def test_what_is_in_its_range_is_taken_as_the_plain_number(room, tmp_path):
    (tmp_path / "ranged.py").write_text(RANGED)
    found = resolve("toy", "ranged:beams=1,damping=0,width=2,rate=0").options
    assert found == {"beams": 1, "damping": 0.0, "width": 2.0, "rate": 0.0}
    assert [type(value) for value in found.values()] == [int, float, float, float]
    assert resolve("toy", "ranged:width=none").options["width"] is None


def test_parse_reads_literals_and_the_nm_shorthand():
    assert parse("2:4") == Choice("nm", {"n": 2, "m": 4})
    assert parse("a:b=1e-9,c=true,d=none,e=x+y,f=-3").options == {"b": 1e-9, "c": True, "d": None, "e": "x+y", "f": -3}


def test_terms_are_weighted_and_resolved(room):
    (room.path / "plain.py").write_text("def score(w): 'H.'\n")
    half, one = resolve_terms("toy", "0.5*plain + scaled:power=1e+3")
    assert (half.weight, str(half)) == (0.5, "0.5*plain")
    assert (one.weight, one.choice.options["power"]) == (1.0, 1000.0)
    for wrong in ("x*plain", "-1*plain", "plain + plain", "inf*plain", "true*plain"):
        with pytest.raises(Problem):
            resolve_terms("toy", wrong)


@pytest.mark.parametrize("text", ["0*plain", "0*plain + 0.0*scaled", "1e-300*plain + 0*scaled"])
def test_a_sum_in_which_nothing_weighs_is_refused(room, text):
    (room.path / "plain.py").write_text("def score(w): 'H.'\n")
    with pytest.raises(Problem, match="weighs nothing"):
        resolve_terms("toy", text)
    assert [term.weight for term in resolve_terms("toy", "0*plain + 1e-9*scaled")] == [0, 1e-9]


def test_bind_gives_each_verb_the_options_it_takes(room, monkeypatch):
    import types

    module = types.SimpleNamespace(score=lambda w, *, power=1.0: (w, power), extra=lambda w, *, steps=3: (w, steps))
    monkeypatch.setattr(rooms, "load", lambda kind, name: module)
    assert bind("toy", "scaled:power=2,steps=7")("w") == ("w", 2.0)
    assert bind("toy", "scaled:power=2,steps=7", "extra")("w") == ("w", 7)


def test_reading_every_room_imports_no_torch():
    code = textwrap.dedent("""
        import sys
        from harness.rooms import ROOMS
        count = sum(bool(room.method(name).summary) for room in ROOMS.values() for name in room.names())
        assert count > 20, count
        assert not {"torch", "transformers", "datasets", "mlflow"} & set(sys.modules)
    """)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_method_of_the_house_has_help_and_resolves():
    for kind, room in ROOMS.items():
        for name in room.names():
            method = room.method(name)
            assert method.summary, f"{kind} {name} has no docstring"
            if all(o.default is not rooms.REQUIRED for o in method.options.values()):
                assert resolve(kind, str(resolve(kind, name))) == resolve(kind, name)


def test_room_is_a_value():
    assert replace(ROOMS["loss"]) == ROOMS["loss"]
