"""No module imports itself through others, not even inside a function: a piece that two need lies below both."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import harness

ROOT = Path(harness.__file__).parent


def modules(root: Path) -> dict[str, Path]:
    """Every module below a package's folder by its dotted name; the scaffolds are texts to copy."""
    names = {path: path.relative_to(root.parent).with_suffix("").parts for path in root.rglob("*.py")}
    named = {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}
    return {name: path for name, path in named.items() if "scaffolds" not in path.relative_to(root).parts}


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules among those known that a file imports, but for what only type checkers read."""
    found: set[str] = set()
    left: list[ast.AST] = [ast.parse(path.read_text(encoding="utf8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module in known:
            inner = {f"{node.module}.{each.name}" for each in node.names}
            found |= inner & known.keys() or {node.module}
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names} & known.keys()
        left += ast.iter_child_nodes(node)
    return found


def circle(root: Path) -> list[str] | None:
    known = modules(root)
    try:
        TopologicalSorter({name: imported(path, known) - {name} for name, path in known.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_imports_go_in_no_circle():
    assert len(modules(ROOT)) > 200 and circle(ROOT) is None


def test_a_circle_through_a_function_is_found(tmp_path):
    (tmp_path / "pack").mkdir()
    for name, text in {"__init__": "", "a": "from pack import b", "b": "def f():\n    from pack.a import g"}.items():
        (tmp_path / "pack" / f"{name}.py").write_text(text)
    assert set(circle(tmp_path / "pack")) == {"pack.a", "pack.b"}
