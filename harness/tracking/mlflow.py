"""The mirror in MLflow: one run a cell, written live or rebuilt from records. The only module that knows MLflow.

A run is made of a cell's plan and record alone (tags, parameters, scores, curves, data sets), live as in `sync`, so
that a rebuilt run is the same run. It is found again by its tag `cell`, the hash of the cell and of its stages' keys:
what was tracked once is not tracked twice, and a run that was cut off is replaced. `live.py` decides when what is
written.

Artifacts of a store that is a file lie beside it; a server has its own place for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.problems import Problem
from harness.tracking import address, facets, record
from harness.tracking.facets import LONGEST_PARAM, LONGEST_TAG, cell_key, cut

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

SYSTEM_EVERY = 3.0
"""Seconds between two looks at the machine's load; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL wins."""
LONGEST_DIGEST = 36
"""MLflow's limit."""
METRICS, PARAMS, RUNS = 1000, 100, 50_000
"""The most that MLflow takes in one batch, and gives in one answer."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Opens an experiment as one of model training rather than of prompts."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A server that does not answer is given up within a minute, not after MLflow's quarter of an hour."""


def sync(records: Iterable[Mapping[str, Any]], uri: str, results: Path) -> int:
    """Writes the runs that a store lacks.

    Args:
        records: As `record.read_all` returns them.
        uri: The tracking store or server.
        results: The results folder; artifacts and plots that are still there are logged too.

    Returns:
        How many runs were written; those that were there whole are left alone.

    Raises:
        Problem: The store cannot be opened, reached or written.
    """
    mirror = Mirror(uri, results)
    with _reaching(uri):
        written = [said for said in records if mirror.complete(said)]
        for entry, scale in dict.fromkeys((said["entry"], said["scale"]) for said in written):
            mirror.plots(entry, sorted((results / "plots").glob(f"{entry}.{scale}.*.png")), map(cell_key, written))
    return len(written)


class Mirror:
    """The runs of one tracking store; a `Problem` if the store cannot be opened."""

    def __init__(self, uri: str, results: Path):
        address.check(uri)
        address.quiet()
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        with _reaching(uri):
            self.uri, self.results, self.client = uri, results, MlflowClient(tracking_uri=uri)
        self._experiments: dict[str, str] = {}

    def complete(self, said: Mapping[str, Any]) -> bool:
        """Writes the run of a record unless the store has it whole; returns whether it did."""
        if self.find(said, finished=True):
            return False
        begin = _now() - round(1000 * sum(stage["seconds"] for stage in said["stages"].values()))
        self.finish(self.open(said, begin), said, begin)
        return True

    def find(self, said: Mapping[str, Any], finished: bool = False) -> str | None:
        """Returns the id of a cell's run, or None."""
        wanted = f"tags.cell = '{cell_key(said)}'" + (" and attributes.status = 'FINISHED'" if finished else "")
        found = self.client.search_runs([self.experiment(said["entry"])], wanted, max_results=1)
        return found[0].info.run_id if found else None

    def open(self, said: Mapping[str, Any], begin: int | None = None) -> str:
        """Starts the run of a cell, in place of an earlier one; returns its id.

        Args:
            said: A record, or as much of one as there is before the cell has run: `record.asked` and its stages.
            begin: When it began, milliseconds; now by default.
        """
        from mlflow.entities import Param

        if before := self.find(said):
            self.client.delete_run(before)
        name = said["label"] + ("" if said["seed"] is None else f" seed {said['seed']}")
        experiment = self.experiment(said["entry"])
        name = f"{name} ({said['scale']})"
        run = self.client.create_run(experiment, start_time=begin, tags=facets.tags(said), run_name=name)
        params = [Param(name, cut(value, LONGEST_PARAM)) for name, value in facets.params(said).items()]
        for batch in _batches(params, PARAMS):
            self.client.log_batch(run.info.run_id, params=batch)
        return run.info.run_id

    def points(self, run: str, values: Iterable[tuple[str, float, int, int]]) -> None:
        """Logs metrics: name, value, step and time in milliseconds each."""
        from mlflow.entities import Metric

        found: list[Metric] = [Metric(_name(name), value, at, step) for name, value, step, at in values]
        for batch in _batches(found, METRICS):
            self.client.log_batch(run, metrics=batch)

    def finish(self, run: str, said: Mapping[str, Any], begin: int, live: Mapping[str, int] | None = None) -> None:
        """Completes the run of a cell from its record.

        Args:
            run: Its id.
            said: The record.
            begin: When the run began, milliseconds.
            live: By role the first step of its curve that was logged already, with all that follow.
        """
        end = begin + round(1000 * sum(stage["seconds"] for stage in said["stages"].values()))
        end = end if live is None else _now()
        self.points(run, facets.curves(said, begin, live or {}))
        self.points(run, ((name, value, 0, end) for name, value in facets.scores(said).items()))
        self.client.log_inputs(run, _datasets(said))
        self.client.log_text(run, record.text(said), "record.json")
        for role, folder in said["artifacts"].items():
            for name in ("predictions.jsonl", "prune.json"):
                if (path := self.results / folder / name).is_file():
                    self.client.log_artifact(run, str(path), role)
        self.client.set_tag(run, "mlflow.source.git.commit", (said["environment"]["git"] or {}).get("sha", "none"))
        self.end(run, "FINISHED", end)

    def end(self, run: str, status: str, at: int | None = None, error: str | None = None) -> None:
        """Ends a run: FINISHED, FAILED (with the error) or KILLED."""
        self.client.set_tag(run, "status", status.lower())
        if error is not None:
            self.client.set_tag(run, "error", cut(error, LONGEST_TAG))
            self.client.log_text(run, error + "\n", "error.txt")
        self.client.set_terminated(run, status, at)

    def plots(self, entry: str, files: Sequence[Path], cells: Iterable[str]) -> None:
        """Keeps an entry's plots in the finished runs of its cells, which are given by their `cell_key`."""
        wanted = set(cells) if files else set()
        finished = "tags.kind = 'cell' and attributes.status = 'FINISHED'"
        for run in self.client.search_runs([self.experiment(entry)], finished, max_results=RUNS) if wanted else ():
            for path in files if run.data.tags["cell"] in wanted else ():
                self.client.log_artifact(run.info.run_id, str(path), "plots")

    def report(self, entry: str, scale: str, files: Sequence[Path], note: str, cells: Iterable[str] = ()) -> None:
        """Keeps tables and plots of an entry in a run of their own, and its table as the experiment's description.

        Args:
            entry: The entry.
            scale: Its scale.
            files: Tables and plots.
            note: The table in Markdown.
            cells: The `cell_key` of the cells whose runs keep the plots too.
        """
        experiment = self.experiment(entry)
        same = f"tags.kind = 'report' and tags.scale = '{scale}'"
        for run in self.client.search_runs([experiment], same):
            self.client.delete_run(run.info.run_id)
        tags = {"kind": "report", "scale": scale, "entry": entry, "status": "finished"}
        run = self.client.create_run(experiment, tags=tags, run_name=f"report ({scale})")
        for path in files:
            self.client.log_artifact(run.info.run_id, str(path))
        self.client.set_experiment_tag(experiment, "mlflow.note.content", cut(note, LONGEST_TAG))
        self.client.set_terminated(run.info.run_id)
        self.plots(entry, [path for path in files if path.suffix == ".png"], cells)

    def watch(self, run: str) -> SystemMetricsMonitor:
        """Starts logging the machine's load to a run; call `finish` on what is returned."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run, SYSTEM_EVERY, resume_logging=True, tracking_uri=self.uri)
        monitor.start()
        return monitor

    def experiment(self, name: str) -> str:
        """Returns the id of an experiment, which is made, or taken back from the trash, if need be."""
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                place = self.results / "mlartifacts" / name.replace("/", ".")
                location = None if self.uri.startswith(address.SERVERS) else place.absolute().as_uri()
                self._experiments[name] = self.client.create_experiment(name, location, tags=KIND)
            else:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiments[name] = found.experiment_id
        return self._experiments[name]


def _datasets(said: Mapping[str, Any]) -> list[DatasetInput]:
    """Returns the data sets that the cell's stages read, each once, with the stages that read it as its context."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    roles: dict[str, list[str]] = {}
    for role, stage in said["stages"].items():
        for source, identity in stage["sources"].items():
            if source.partition("/")[0] in ("data", "search"):
                roles.setdefault(identity, []).append(role)
    found = []
    for identity, readers in roles.items():
        kind, _, rest = identity.partition(":")
        name, _, revision = rest.rpartition("@")
        data = Dataset(name, revision.removeprefix("sha256:")[:LONGEST_DIGEST], kind, identity)
        found.append(DatasetInput(data, [InputTag("mlflow.data.context", ", ".join(readers))]))
    return found


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _name(text: str) -> str:
    """Returns a metric's name with only what MLflow allows in one."""
    return re.sub(r"[^\w\-. :/]", "_", text)


def _now() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def _reaching(uri: str) -> Iterator[None]:
    """Makes a problem of whatever keeps a store from being opened or written; passwords in its address are hidden."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        said = address.shown(str(error)).partition("\n")[0]
        what, where = f"the tracking store cannot be used: {said}", address.shown(uri)
        raise Problem(what, where=where, hint=address.HINT) from error
