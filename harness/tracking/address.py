"""Where runs are tracked: the store's address, what keeps it from being used, and the dashboard on it.

The store is a SQLite file beside the results unless `MLFLOW_TRACKING_URI` says otherwise (MLflow refuses plain folders
since 3.13). What is wrong with a file is found here at once: MLflow itself tries it again for a long time.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from pathlib import Path

from harness.problems import Problem

SERVERS = ("http://", "https://", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
HINT = "start or repair it, or set MLFLOW_TRACKING_URI to another (sqlite:///file.db, http://host:port)"
_MAGIC = b"SQLite format 3\0"
_HOST = "127.0.0.1"


def store_uri(results: Path) -> str:
    """Returns the tracking store of a results folder: MLFLOW_TRACKING_URI, or a SQLite file in it."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results / 'mlflow.db').absolute()}"


def shown(uri: str) -> str:
    """Returns an address, or a text with one, without the password."""
    return re.sub(r"//[^/@\s]*@", "//***@", uri)


def check(uri: str) -> None:
    """Looks at what can be said of a store without MLflow: its kind, and for a file whether it can be written.

    Raises:
        Problem: It cannot be used.
    """
    if uri.startswith(SERVERS):
        return
    kind = uri.partition(":")[0].partition("+")[0]
    if "://" not in uri or kind not in DATABASES:
        what = "this is no tracking store: MLflow takes a database or a server"
        raise Problem(what, where=shown(uri), hint=HINT)
    path = Path(uri.partition(":///")[2].partition("?")[0])
    if kind == "sqlite" and path != Path() and (wrong := _wrong_file(path)):
        raise Problem(f"the tracking store cannot be used: {wrong}", where=uri, hint=HINT)


def _wrong_file(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if not os.access(path if path.exists() else path.parent, os.W_OK) or not os.access(path.parent, os.W_OK):
        return "it may not be written"
    if path.exists():
        try:
            with path.open("rb") as file:
                start = file.read(len(_MAGIC))
        except OSError as error:
            return error.strerror
        return None if start in (b"", _MAGIC) else "the file is no SQLite database"
    return None


def ui_command(results: Path, port: int = 5000) -> list[str]:
    """Returns the command that starts the dashboard on the store of a results folder.

    Raises:
        Problem: The store is a server, which has a dashboard of its own, or cannot be used, or the port is taken.
    """
    uri = store_uri(results)
    if uri.startswith(SERVERS):
        raise Problem(f"the tracking store is a server; its dashboard is at {shown(uri)}", where="MLFLOW_TRACKING_URI")
    check(uri)
    _check_port(port)
    quiet()
    artifacts = (results / "mlartifacts").absolute().as_uri()
    places = ["--backend-store-uri", uri, "--default-artifact-root", artifacts]
    return [sys.executable, "-m", "mlflow", "server", *places, "--host", _HOST, "--port", str(port)]


def ui_address(port: int = 5000) -> str:
    """Returns where the dashboard lists the experiments, in its view for model training."""
    return f"http://{_HOST}:{port}/#/experiments?workflowType=machine_learning"


def _check_port(port: int) -> None:
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((_HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            what = f"port {port} is taken" if taken else f"port {port} cannot be used: {error.strerror}"
            also = f"perhaps a dashboard is open already, at {ui_address(port)}; " if taken else ""
            raise Problem(what, hint=f"{also}another port: harness ui --port 5001") from error


def quiet() -> None:
    """Keeps MLflow from sending usage statistics, which it does over the network by default."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
