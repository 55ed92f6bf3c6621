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
    room = Room("toy", str(tmp_path), ("score", "extra"))
    monkeypatch.setitem(ROOMS, "toy", room)
    return room


def test_a_file_is_a_method_and_its_signature_the_options(room):
    assert room.names() == ("scaled",)
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


def test_a_required_option_must_be_given(room, tmp_path):
    (tmp_path / "strict.py").write_text("def score(weight, *, n: int):\n    'Help.'\n")
    with pytest.raises(Problem, match="needs the option 'n'"):
        resolve("toy", "strict")
    assert resolve("toy", "strict:n=2").options == {"n": 2}


def test_verbs_of_one_file_share_one_set_of_options(room, tmp_path):
    (tmp_path / "two.py").write_text("def score(w, *, a=1): 'H.'\ndef extra(w, *, a=1, b=2): 'H.'\n")
    assert resolve("toy", "two").options == {"a": 1, "b": 2}
    (tmp_path / "clash.py").write_text("def score(w, *, a=1): 'H.'\ndef extra(w, *, a=2): 'H.'\n")
    with pytest.raises(Problem, match="two defaults"):
        resolve("toy", "clash")


def test_a_file_without_the_rooms_verb_is_a_problem(room, tmp_path):
    (tmp_path / "empty.py").write_text("def other(): pass\n")
    with pytest.raises(Problem, match="defines no function 'score'"):
        resolve("toy", "empty")


def test_parse_reads_literals_and_the_nm_shorthand():
    assert parse("2:4") == Choice("nm", {"n": 2, "m": 4})
    assert parse("a:b=1e-9,c=true,d=none,e=x+y,f=-3").options == {"b": 1e-9, "c": True, "d": None, "e": "x+y", "f": -3}


def test_terms_are_weighted_and_resolved(room):
    (room.path / "plain.py").write_text("def score(w): 'H.'\n")
    half, one = resolve_terms("toy", "0.5*plain + scaled:power=1e+3")
    assert (half.weight, str(half)) == (0.5, "0.5*plain")
    assert (one.weight, one.choice.options["power"]) == (1.0, 1000.0)
    for wrong in ("x*plain", "-1*plain", "plain + plain"):
        with pytest.raises(Problem):
            resolve_terms("toy", wrong)


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
