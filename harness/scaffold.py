"""`harness add`: a new experiment or method with its test, as a working start to edit.

The starts are the files in `scaffolds/`: whole modules of a method called `new_method`, and an entry `new/experiment`.
What is written passes `harness check`, the contract tests and its own test as it stands, so that every later edit
begins from green.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from pathlib import Path

from harness.problems import Problem, unknown
from harness.rooms import PACKAGE, ROOMS

STARTS = PACKAGE / "scaffolds"
METHODS = tuple(kind for kind in ROOMS if (STARTS / "methods" / f"{kind}.py").is_file())
KINDS = ("experiment", *METHODS)
_YAML_WORDS = ("true", "false", "null", "none")
"""What a text in YAML or on the command line says besides a name."""


def add(kind: str, name: str, root: Path) -> list[Path]:
    """Writes a new experiment or method with its test.

    An experiment goes below `root`. A method goes into the package's own folders, because a folder is the registry, and
    its test into the same checkout, wherever the command was given.

    Args:
        kind: One of `KINDS`.
        name: `paper/table` for an experiment, a Python name for a method.
        root: The folder of `experiments/`.

    Returns:
        The files written.

    Raises:
        Problem: The kind is unknown, the name cannot be one, a file is there already, or there is no checkout to
            write into.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    title = name.rpartition("/")[2].replace("-", " ").replace("_", " ").capitalize()
    if kind == "experiment":
        _check_experiment(name)
        words = {"new/experiment": name, "New experiment": title}
        starts = {root / "experiments" / f"{name}.yaml": STARTS / "experiment.yaml"}
    else:
        _check_method(kind, name)
        words, folder = {"new_method": name, "New method": title}, ROOMS[kind].folder
        starts = {
            PACKAGE / folder / f"{name}.py": STARTS / "methods" / f"{kind}.py",
            _tests() / folder / f"test_{name}.py": STARTS / "tests" / f"{kind}.py",
        }
    if there := next((path for path in starts if path.exists()), None):
        raise Problem(f"{there} is there already", hint="choose another name, or edit it")
    for path, start in starts.items():
        text = re.sub("|".join(words), lambda found: words[found[0]], start.read_text(encoding="utf8"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    return list(starts)


def _tests() -> Path:
    """Returns the folder of the tests beside the package."""
    tests = PACKAGE.parent / "tests"
    if not tests.is_dir():
        hint = "a method is a file of the package: clone the repository and `pip install -e .` there"
        raise Problem("the installed package has no tests beside it", where=str(PACKAGE), hint=hint)
    return tests


def _check_experiment(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*", name):
        hint = "use small letters, digits, _ and -, as in mine/first-try"
        raise Problem(f"{name!r} is no name for a new experiment", hint=hint)
    if name == "all" or name.partition("/")[0] == "experiments":
        hint = "'all' stands for every experiment, and 'experiments/' is left out of a name"
        raise Problem(f"{name!r} is no name for a new experiment", hint=hint)


def _check_method(kind: str, name: str) -> None:
    wrong = f"{name!r} is no name for a new {kind}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise Problem(wrong, hint="use small letters, digits and _, as in wanda")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise Problem(f"{wrong}: it is a word of Python's own", hint=f"try {name}_{kind}")
    if hasattr(builtins, name) or name in _YAML_WORDS:
        raise Problem(f"{wrong}: it has a meaning of its own, in Python or in YAML", hint=f"try {name}_{kind}")
    package = ROOMS[kind].path / "__init__.py"
    if name in _defined(package):
        raise Problem(f"{wrong}: {package} defines it", hint=f"try {name}_{kind}")


def _defined(path: Path) -> set[str]:
    """Returns the names that a module defines or imports at its top, which a submodule of such a name would replace."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found
