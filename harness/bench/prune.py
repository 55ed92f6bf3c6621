"""How long pruning takes and how much memory it needs, beside other programs that do the same (`harness bench prune`).

Every contender is a command. Rounds are interleaved, each begins with another contender, and nothing else of ours runs
beside a command; times are wall times of whole processes, from starting Python to the written folder. What is reported
is the median and the smallest and largest of all rounds; ratios are to the first command that is not ours. Its masks,
too, are what the others' are compared with: the share of equal entries in what each wrote last.

`scaling` runs ours alone on the model's first third, two thirds and all of its blocks, and on a quarter, half and all
of the samples, and lays a line through each three.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import output, rooms
from harness.bench import measure, truncate
from harness.bench import record as kept
from harness.bench.masks import agreement
from harness.problems import Problem, unknown

OURS = "ours"


@dataclass(frozen=True)
class Task:
    """What every contender is to do.

    Attributes:
        model: The model's folder.
        calibration: A JSON Lines file.
        sparsity: Fraction of zeros.
        samples: How many of its rows calibrate.
    """

    model: Path
    calibration: Path
    sparsity: float
    samples: int


@dataclass(frozen=True)
class Contender:
    """A command, a template over the task; `method` is the only one it does, by name; None for any."""

    name: str
    command: tuple[str, ...]
    method: str | None = None

    def words(self, task: Task, method: str, out: Path) -> list[str]:
        """Returns the command for one run; to others a method is its name, without our options."""
        values = {**asdict(task), "method": _bare(method), "out": out}
        return [re.sub(r"\{(\w+)\}", lambda found: str(values[found[1]]), word) for word in self.command]


def peer(text: str, methods: Sequence[str]) -> Contender:
    """Reads `NAME=COMMAND` or, for one that does a single method, `METHOD/NAME=COMMAND`, without our options.

    Raises:
        Problem: It is not of that form, or names a method or a placeholder that there is not.
    """
    name, equals, command = text.partition("=")
    method, slash, short = name.strip().rpartition("/")
    if not equals or not command.strip() or not short:
        raise Problem(f"cannot read {text!r}", hint="write NAME=COMMAND or METHOD/NAME=COMMAND")
    names = [_bare(each) for each in methods]
    if slash and method not in names:
        raise unknown("method of this benchmark", method, names)
    known = ("model", "calibration", "sparsity", "samples", "method", "out")
    for found in re.findall(r"\{(\w+)\}", command):
        if found not in known:
            raise unknown("placeholder", found, known, where=f"--against {short}")
    return Contender(short, tuple(shlex.split(command)), method or None)


def _bare(method: str) -> str:
    return rooms.parse(method).name


def listed(parts: Sequence[str]) -> list[str]:
    """Returns methods of a list that was cut at every comma, also at those between a method's options."""
    found: list[str] = []
    for part in parts:
        if found and ":" in found[-1] and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def ours(method: str, pattern: str | None = None) -> Contender:
    """Returns our own command for a method with its options; a solver where there are both of its name.

    Raises:
        Problem: There is no such method, or it has no such option.
    """
    kinds = [kind for kind in ("solver", "criterion") if _bare(method) in rooms.ROOMS[kind].names()]
    if not kinds:
        names = [name for kind in ("solver", "criterion") for name in rooms.ROOMS[kind].names()]
        raise unknown("criterion or solver", _bare(method), set(names))
    rooms.resolve(kinds[0], method)
    words = [sys.executable, "-m", "harness.cli", "prune", "{model}", "--out", "{out}", f"--{kinds[0]}", method]
    words += ["--calibration", "{calibration}", "--samples", "{samples}", "--sparsity", "{sparsity}"]
    return Contender(OURS, (*words, *(["--pattern", pattern] if pattern else [])), _bare(method))


Tell = Callable[[str, measure.Run], None]


def race(task: Task, methods: dict[str, list[Contender]], repeats: int, tell: Tell, last: Path) -> list[dict[str, Any]]:
    """Runs all contenders of all methods `repeats` times, interleaved, and returns one row each.

    Args:
        task: What they do.
        methods: The contenders of each method, ours first.
        repeats: Rounds.
        tell: Called after every run with what ran.
        last: A folder for what each row's command wrote in the last round, by the row's number.
    """
    lanes = [(method, contender) for method, contenders in methods.items() for contender in contenders]
    runs: dict[int, list[measure.Run]] = {lane: [] for lane in range(len(lanes))}
    for turn in range(repeats):
        for step in range(len(lanes)):
            lane = (turn + step) % len(lanes)
            method, contender = lanes[lane]
            kept = last / str(lane) if turn == repeats - 1 else None
            runs[lane].append(_once(contender, task, method, kept))
            tell(f"{method} {contender.name}", runs[lane][-1])
    return [
        {"method": method, "name": contender.name, "command": _shown(contender), **_account(runs[lane])}
        for lane, (method, contender) in enumerate(lanes)
    ]


def compare(rows: list[dict[str, Any]], last: Path) -> None:
    """Adds to each row its `agreement`: with the masks of the first command that is not ours, over our pruned layers.

    Args:
        rows: From `race`, whose `last` this is.
        last: What each row's command wrote. Read when all runs are over, for it takes a library that is heavy to load.
    """
    for method in dict.fromkeys(row["method"] for row in rows):
        lanes = [lane for lane, row in enumerate(rows) if row["method"] == method]
        mine = next(lane for lane in lanes if rows[lane]["name"] == OURS)
        rival = next((lane for lane in lanes if rows[lane]["name"] != OURS), None)
        told = last / str(mine) / "prune.json"
        layers = list(json.loads(told.read_text(encoding="utf8"))["layers"]) if told.is_file() else []
        for lane in lanes:
            alone = rival is None or lane == rival
            rows[lane]["agreement"] = None if alone else agreement(last / str(lane), last / str(rival), layers)


def scaling(task: Task, methods: Sequence[Contender], repeats: int, tell: Tell) -> list[dict[str, Any]]:
    """Runs our command at three depths and at three numbers of samples; returns a row for each method and either."""
    full = truncate.depth(task.model)
    depths = sorted({max(1, full * part // 3) for part in (1, 2, 3)})
    counts = sorted({max(1, task.samples * part // 4) for part in (1, 2, 4)})
    if len(depths) < 3 or len(counts) < 3:
        raise Problem("growth needs at least 3 blocks and 4 samples", hint=f"here are {full} and {task.samples}")
    with tempfile.TemporaryDirectory() as folder:
        small = {each: truncate.truncate(task.model, each, Path(folder) / str(each)) for each in depths[:-1]}
        small[full] = task.model
        sized = {each: Task(small[each], task.calibration, task.sparsity, task.samples) for each in depths}
        drawn = {each: Task(task.model, task.calibration, task.sparsity, each) for each in counts}
        return [
            _growth(contender, axis, tasks, repeats, tell)
            for contender in methods
            for axis, tasks in (("blocks", sized), ("samples", drawn))
        ]


def _growth(contender: Contender, axis: str, tasks: dict[int, Task], repeats: int, tell: Tell) -> dict[str, Any]:
    runs: dict[int, list[measure.Run]] = {size: [] for size in tasks}
    for _ in range(repeats):
        for size, task in tasks.items():
            runs[size].append(_once(contender, task, contender.method))
            tell(f"{contender.method} {size} {axis}", runs[size][-1])
    points = {size: _account(each) for size, each in runs.items()}
    medians = [(size, point["seconds"]["median"]) for size, point in points.items()]
    return {"method": contender.method, "axis": axis, "points": points, "line": measure.line(medians)}


def _once(contender: Contender, task: Task, method: str, kept: Path | None = None) -> measure.Run:
    """Runs a command once; `kept` is where what it writes stays."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        words = contender.words(task, method, kept or place / "out")
        return measure.run(f"{method} {contender.name}", words, place / "log.txt")


def _account(runs: Sequence[measure.Run]) -> dict[str, Any]:
    return {
        "seconds": measure.spread([run.seconds for run in runs]),
        "cpu_seconds": measure.spread([run.cpu_seconds for run in runs]),
        "peak_bytes": measure.spread([run.peak_bytes for run in runs]),
        "runs": [asdict(run) for run in runs],
    }


def _shown(contender: Contender) -> str:
    """Returns a command without where on this machine its files lie."""
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in contender.command)


def record(
    name: str, calibration: str, task: Task, rows: list[dict[str, Any]], grown: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns what is kept of a benchmark, ready for JSON.

    Args:
        name: The model's identity.
        calibration: The calibration file's identity.
        task: What was done.
        rows: From `race`.
        grown: From `scaling`.
    """
    asked = {"sparsity": task.sparsity, "samples": task.samples}
    return kept.record("prune", model=name, calibration=calibration, **asked, contenders=rows, scaling=grown)


def table(said: dict[str, Any]) -> str:
    """Returns a record as Markdown."""
    runs = len(said["contenders"][0]["runs"])
    machine = said["environment"]
    lines = [
        f"Pruning {said['model'].partition('@')[0]} to {said['sparsity']:.0%}, {said['samples']} calibration samples.",
        f"Whole processes, one at a time, {runs} rounds: median (smallest to largest). {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB.",
        "",
        "| method | program | seconds | ratio | peak GiB | ratio | same mask |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(said["contenders"])]
    for growth in said["scaling"]:
        line, points = growth["line"], growth["points"]
        each = ", ".join(f"{size}: {point['seconds']['median']:.1f} s" for size, point in points.items())
        lines += [
            "",
            f"{growth['method']} over {growth['axis']}: {each}. "
            f"Line: {line['intercept']:.1f} s + {line['slope']:.3g} s each, R² {line['r2']:.4f}.",
        ]
    return "\n".join(lines) + "\n"


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for row in rows:
        first = next((r for r in rows if r["method"] == row["method"] and r["name"] != OURS), None)
        cells = [row["method"], row["name"]]
        for key, unit in (("seconds", 1), ("peak_bytes", 2**30)):
            value = row[key]
            cells.append(f"{value['median'] / unit:.2f} ({value['min'] / unit:.2f} to {value['max'] / unit:.2f})")
            cells.append(f"{value['median'] / first[key]['median']:.2f}" if first else "")
        same = row.get("agreement")
        cells.append("" if same is None else f"{same:.4%}")
        yield cells


def command(
    model: str,
    calibration: Path,
    methods: Sequence[str],
    sparsity: float,
    *,
    samples: int | None,
    pattern: str | None,
    repeats: int,
    against: Sequence[str],
    grow: bool,
    out: Path,
) -> None:
    """Benchmarks pruning: runs, tells of each run, writes the record and prints the table.

    Raises:
        Problem: Something is wrong, before anything runs; or a command failed.
    """
    from rich.markdown import Markdown

    from harness.data import jsonl
    from harness.runs.origins import Origins
    from harness.sources import snapshot

    methods = listed(methods)
    contenders = {method: [ours(method, pattern)] for method in methods}
    for each in (peer(text, methods) for text in against):
        for method in (method for method in methods if each.method in (None, _bare(method))):
            contenders[method].append(each)
    origins = Origins()
    source = origins.model(model)
    origins.check()
    folder = snapshot(source)
    if folder is None:
        raise Problem(f"the files of {model} are not here", hint=f"`hf download {model}` fetches them")
    have = len(jsonl.rows("train", path=str(calibration)))
    task = Task(folder, calibration.absolute(), sparsity, samples or have)
    console = output.console()

    def tell(what: str, run: measure.Run) -> None:
        console.print(
            f"{what:<32}{run.seconds:8.1f} s{run.peak_bytes / 2**30:8.2f} GiB  load {run.load:.1f}", style="dim"
        )

    with tempfile.TemporaryDirectory() as last:
        rows = race(task, contenders, repeats, tell, Path(last))
        grown = scaling(task, [each[0] for each in contenders.values()], repeats, tell) if grow else []
        compare(rows, Path(last))
    said = record(source.identity, jsonl.source(path=str(calibration)).identity, task, rows, grown)
    paths = kept.write(said, table(said), out)
    console.print(Markdown(table(said)))
    console.print(*paths, sep="\n", markup=False)
