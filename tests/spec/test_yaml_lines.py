from __future__ import annotations

from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.spec import yaml_lines


def load(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf8")
    return yaml_lines.load(path)


def problem(tmp_path, text):
    with pytest.raises(Problem) as caught:
        load(tmp_path, text)
    return caught.value.where.rpartition("a.yaml")[2], caught.value.what


def test_every_key_and_item_has_its_line(tmp_path):
    document = load(tmp_path, "a: 1\n\ngrid:\n  prune.sparsity: [0.5,\n    0.6]\n  b: {c: 1,\n   d: 2}\n")
    assert document.lines == {
        "": 1, "a": 1, "grid": 3, "grid.prune.sparsity": 4, "grid.prune.sparsity.0": 4, "grid.prune.sparsity.1": 5,
        "grid.b": 6, "grid.b.c": 6, "grid.b.d": 7,
    }  # fmt: skip
    assert document.where("grid.b.d").endswith("a.yaml:7")
    assert document.where("grid.b.absent").endswith("a.yaml:6")
    assert document.where("absent").endswith("a.yaml:1")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4), ("1E3", 1000.0), (".5", 0.5), ("3.", 3.0), ("-7", -7), ("010", 10), ("1_000", "1_000"),
        ("true", True), ("on", "on"), ("no", "no"), ("2:4", "2:4"), ("~", None), ("", None),
        ("2024-01-01", "2024-01-01"),
        ('"1"', "1"), ("1.2.3", "1.2.3"), ("squarehead:eps=1e-9", "squarehead:eps=1e-9"), ("[1, 2:4]", [1, "2:4"]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(tmp_path, written, value):
    found = load(tmp_path, f"a: {written}\n").data["a"]
    assert found == value and type(found) is type(value)
    assert yaml_lines.value(written, "--set") == value


def test_keys_stay_as_written(tmp_path):
    assert load(tmp_path, "{0.50: a, 2:4: b, null: c}").data == {"0.50": "a", "2:4": "b", "null": "c"}


def test_a_repeated_key_is_refused_with_both_lines(tmp_path):
    assert problem(tmp_path, "a:\n  b: 1\n  c: 2\n  b: 3\n") == (":4", "key 'b' stands twice, first on line 2")


def test_anchors_that_make_many_of_few_are_a_problem(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(9))}]" for before, name in pairwise("abcdefgh")]
    assert "anchors make more than" in problem(tmp_path, "\n".join(lines))[1]


@pytest.mark.parametrize(("depth", "line"), [(100, {":2"}), (5000, {":2", ""})])
def test_deep_nesting_is_a_problem(tmp_path, depth, line):
    where, what = problem(tmp_path, f"b: 1\na: {'[' * depth}{']' * depth}\n")
    assert where in line and ("nested" in what or "no YAML" in what)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: [1\nb: 2\n", ":2", "no YAML"), ("a: *b\n", ":1", "no YAML"), ("a: 1\n---\nb: 2\n", ":2", "no YAML"),
        ("a: \x01\n", "", "no YAML"), ("", ":1", "a mapping"), ("- 1\n", ":1", "a mapping"),
        ("b: 1\na: !!python/tuple [1]\n", ":2", "plain data"), ("a: !!int x\n", ":1", "plain data"),
        ("a: 1\n? [b]\n: 1\n", ":2", "plain text"), ("a: &x [*x]\n", ":1", "holds itself"),
    ],
)  # fmt: skip
def test_what_is_no_plain_yaml_is_refused_with_its_line(tmp_path, text, line, part):
    where, what = problem(tmp_path, text)
    assert where == line and part in what


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    with pytest.raises(Problem, match="cannot be read"):
        yaml_lines.load(tmp_path / "absent.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(Problem, match="cannot be read"):
        yaml_lines.load(tmp_path / "a.yaml")


def test_both_readers_of_pyyaml_agree(tmp_path, monkeypatch):
    text = "a: {lr: 1e-4, x: 2:4}\nb:\n- 0.5\n- on\n"
    fast = load(tmp_path, text)

    class Slow(yaml.SafeLoader):
        yaml_implicit_resolvers = yaml_lines._Reader.yaml_implicit_resolvers

    monkeypatch.setattr(yaml_lines, "_Reader", Slow)
    assert load(tmp_path, text) == fast


words = st.text("abcxyz_", min_size=1, max_size=6)
scalars = (
    st.none() | st.booleans() | st.integers(-999, 999) | st.floats(-1e6, 1e6) | words.filter(lambda w: w != "null")
)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))


@settings(max_examples=60)
@given(data=st.dictionaries(words, trees, min_size=1, max_size=5), flow=st.booleans())
def test_data_come_back_and_lines_point_at_their_keys(tmp_path_factory, data, flow):
    text = yaml.safe_dump(data, default_flow_style=flow, sort_keys=False)
    document = load(tmp_path_factory.mktemp("yaml"), text)
    assert document.data == data
    lines = text.splitlines()
    for dotted, line in document.lines.items():
        key = dotted.rpartition(".")[2]
        assert key.isdigit() or key in lines[line - 1]
