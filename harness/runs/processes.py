"""A stage in several processes: this one keeps the store, the lease and what is told; N others compute together.

    parent   begins the processes, passes on the progress of the first, stops all when one ends badly
    process  runs the stage's generator with the variables by which torch's processes find each other

Only training stages are computed so (`TRAINS`). The first process writes the stage's folder and its checkpoints. Ctrl-C
and SIGTERM reach the parent alone, which asks all processes to stop after the step in hand; they end with the parent,
however that ends. Which processes compute changes no setting and no key: a result is that of one process but for
rounding.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from harness.problems import Problem, unknown
from harness.runs.job import Job, Progress

if TYPE_CHECKING:
    from torch.distributed import TCPStore

TRAINS = ("pretrain", "prepare", "tune")
"""The stages that several processes can compute."""
PARALLEL = "HARNESS_PARALLEL"
"""The variable that tells a process how its model lies: "ddp", whole in each, or "fsdp", shared out."""
POLL = 0.2
"""Seconds between two looks whether somebody wants to stop."""
GRACE = 1.0
"""Seconds in which a process's end may be seen after another has told of its error."""

Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Processes:
    """How a run computes its training stages.

    Attributes:
        count: Processes; 1 computes in the one that is there.
        parallel: Whether each holds the model whole ("ddp"), or its share of it ("fsdp").
    """

    count: int = 1
    parallel: Parallel = "ddp"

    def compute(self, stage: str) -> bool:
        """Says whether a stage is computed by several processes."""
        return self.count > 1 and stage in TRAINS


ALONE = Processes()


def team(count: int, parallel: str) -> Processes:
    """Returns how a run computes its training stages, checked.

    Raises:
        Problem: There is no such way to lay a model out, or one process has nobody to share it with.
    """
    if parallel not in get_args(Parallel):
        raise unknown("way to train in parallel", parallel, get_args(Parallel), where="--parallel")
    if count == 1 and parallel != ALONE.parallel:
        what = f"{parallel} shares a model out over several processes, and there is one"
        raise Problem(what, where="--parallel", hint="--processes 2, or leave --parallel out")
    return Processes(count, parallel)


def parallel() -> str:
    """Returns how the model lies in the processes that this one is of: "ddp" or "fsdp"."""
    return os.environ.get(PARALLEL, "ddp")


def check_alone() -> None:
    """Makes sure that no launcher began this process as one of several: each would write the results.

    Raises:
        Problem: One did.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        what = f"a launcher began this as one of {os.environ['WORLD_SIZE']} processes"
        raise Problem(what, where="WORLD_SIZE", hint="the harness begins its own: harness run ENTRY --processes 2")


def run(module: str, job: Job, processes: Processes) -> Iterator[Progress]:
    """Computes a stage in several processes.

    Args:
        module: The stage's module, `harness.stages.tune`.
        job: The stage to compute.
        processes: How many, and how the model lies in them.

    Yields:
        The progress of the first process.

    Raises:
        Problem: One of the processes met it, or was ended from outside; or there are fewer GPUs than processes.
        Exception: What one of the processes met.
        KeyboardInterrupt: Somebody wanted to stop, and a checkpoint was written.
    """
    from harness.tuning import interrupts

    devices = _devices(processes.count)
    with interrupts.held() as wanted, contextlib.closing(_Team(module, job, processes, devices)) as team:
        asked = False
        while team.left:
            if wanted() and not asked:
                asked = True
                team.stop()
            yield from team.heard()
    if team.stopped:
        raise KeyboardInterrupt


def _devices(count: int) -> list[str]:
    """Returns each process's device."""
    import torch

    from harness.device import device

    chosen = device()
    if chosen.type == "cpu":
        return ["cpu"] * count
    if chosen.index is not None:
        hint = "unset it: each process takes a GPU"
        raise Problem(f"{count} processes cannot share {chosen}", where="HARNESS_DEVICE", hint=hint)
    if count > torch.cuda.device_count():
        raise Problem(f"{count} processes need as many GPUs, and there are {torch.cuda.device_count()}")
    return [f"cuda:{number}" for number in range(count)]


class _Team:
    """The processes that compute a stage, and what they say."""

    def __init__(self, module: str, job: Job, processes: Processes, devices: Sequence[str]):
        self._meeting = _meeting(processes.count)
        self._job = job
        self.left: dict[Connection, int] = {}
        self.stopped = False
        self._workers: list[subprocess.Popen] = []
        try:
            for rank, place in enumerate(devices):
                self._begin(rank, module, {**_variables(rank, processes, self._meeting.port), "HARNESS_DEVICE": place})
        except BaseException:
            self.close()
            raise

    def _begin(self, rank: int, module: str, variables: dict[str, str]) -> None:
        hears, says = Pipe(duplex=False)
        command = [sys.executable, "-m", "harness.runs.processes", str(says.fileno())]
        with self._log(rank).open("wb") as log, says:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                pass_fds=[says.fileno()],
                start_new_session=True,  # the terminal's Ctrl-C is the parent's
            )
        self._workers.append(worker)
        self.left[hears] = rank
        with contextlib.suppress(BrokenPipeError):  # it has died already, which `heard` tells
            pickle.dump((sys.path, module, self._job), worker.stdin)
            worker.stdin.flush()

    def _log(self, rank: int) -> Path:
        return self._job.scratch / f"process-{rank}.log"

    def heard(self) -> Iterator[Progress]:
        """Yields the progress that has come, or nothing within `POLL` seconds.

        Raises:
            Exception: What a process met.
            Problem: A process is gone without a word.
        """
        for connection in wait(list(self.left), POLL):
            rank = self.left[connection]
            try:
                said = connection.recv()
            except EOFError:
                raise self._gone(rank) from None
            if isinstance(said, Progress):
                yield said
                continue
            del self.left[connection]
            connection.close()
            if isinstance(said, _Failure):
                raise self._cause(said) from _Elsewhere(said.text)
            self.stopped |= said == STOPPED

    def _cause(self, failure: _Failure) -> Exception:
        """Returns what a process met; or, where another was killed and this one lost its peer, that."""
        if isinstance(failure.error, Problem):
            return failure.error
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            for rank, worker in enumerate(self._workers):
                if (worker.poll() or 0) < 0:
                    return self._gone(rank)
            time.sleep(GRACE / 20)
        return failure.error

    def _gone(self, rank: int) -> Problem:
        code = self._workers[rank].wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        hint = "SIGKILL is the system's where memory ran out; harness run --retry goes on from the last checkpoint"
        return Problem(f"process {rank} of {len(self._workers)} {how}", where=str(self._log(rank)), hint=hint)

    def stop(self) -> None:
        """Asks every process to end after the step in hand, with a checkpoint."""
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Ends what is left: nicely where all are well, so that a checkpoint is written, at once where one is not."""
        well = sys.exc_info()[0] in (None, GeneratorExit) and not any(worker.poll() for worker in self._workers)
        if well and self.left:
            self.stop()
            with contextlib.suppress(Exception):  # nobody listens any more
                while self.left:
                    list(self.heard())
        for worker in self._workers:
            if not well:
                worker.kill()
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.close()
        for worker in self._workers:
            worker.wait()
        for connection in self.left:
            connection.close()


class _Elsewhere(Exception):
    """Shows another process's traceback above an error's own."""


@dataclass(frozen=True)
class _Failure:
    """An error in a process, and its traceback."""

    error: Exception
    text: str


class ShareDone(Exception):
    """This process has done its share of a stage: what follows, writing the result, is the first process's alone."""


DONE, STOPPED = "done", "stopped"


def _meeting(count: int) -> TCPStore:
    """Returns the store in which the processes find each other; this process holds it, so its port is surely free."""
    from torch.distributed import TCPStore

    return TCPStore("127.0.0.1", 0, count, is_master=True, wait_for_workers=False)


def _variables(rank: int, processes: Processes, port: int) -> dict[str, str]:
    """Returns what tells torch and accelerate which of how many a process is."""
    count = str(processes.count)
    threads = max(1, (os.cpu_count() or 1) // processes.count)
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        PARALLEL: processes.parallel, "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip


def _worker(says: Connection) -> None:
    """What a process does: its share of the stage; it tells how that went."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background lacks
    path, module, job = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    threading.Thread(target=_end_with_parent, daemon=True).start()
    first = os.environ["RANK"] == "0"
    try:
        with contextlib.suppress(ShareDone), contextlib.closing(importlib.import_module(module).run(job)) as steps:
            for progress in steps:
                if first:
                    says.send(progress)
        says.send(DONE)
    except KeyboardInterrupt:
        says.send(STOPPED)
    except Exception as error:
        says.send(_failure(error))
        raise


def _failure(error: Exception) -> _Failure:
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # some errors cannot cross a process
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return _Failure(error, text)


def _end_with_parent() -> None:
    """Ends this process at once when its parent is gone: the stage is then nobody's, and may be another's soon."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    from harness.runs import processes  # the module, not this copy of it: what is sent must be of its types

    processes._worker(Connection(int(sys.argv[1]), readable=False))
