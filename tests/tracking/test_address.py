from __future__ import annotations

import socket
import time

import pytest

from harness.problems import Problem
from harness.tracking import address


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def free():
    """A port that nobody listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def test_the_store_is_a_file_beside_the_results_or_what_is_set(tmp_path, monkeypatch, free):
    assert address.store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    command = address.ui_command(tmp_path, free)
    assert command[1:4] == ["-m", "mlflow", "server"]
    assert command[command.index("--backend-store-uri") + 1] == address.store_uri(tmp_path)
    assert command[-4:] == ["--host", "127.0.0.1", "--port", str(free)]
    assert address.ui_address(free).startswith(f"http://127.0.0.1:{free}/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking:5000")
    assert address.store_uri(tmp_path) == "http://me:secret@tracking:5000"
    with pytest.raises(Problem, match=r"http://\*\*\*@tracking:5000") as caught:
        address.ui_command(tmp_path, free)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["odd://place", "mlruns", "file:///tmp/mlruns", "sqlite", "nonsense://me:secret@host"])
def test_what_is_no_store_is_refused(tmp_path, monkeypatch, free, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(Problem, match="no tracking store") as caught:
        address.ui_command(tmp_path, free)
    assert "sqlite:///file.db" in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["postgresql://me@host/runs", "mysql+pymysql://host/runs", "https://host", "databricks"]
)
def test_what_only_the_store_itself_can_tell_is_left_to_it(uri):
    address.check(uri)


def test_a_file_that_cannot_be_the_store_is_refused_at_once(tmp_path):
    begin = time.monotonic()
    with pytest.raises(Problem, match="there is no folder"):
        address.check(f"sqlite:///{tmp_path}/absent/mlflow.db")
    with pytest.raises(Problem, match="there is no folder /dev/null/no"):
        address.check("sqlite:////dev/null/no/mlflow.db")
    (tmp_path / "notes.db").write_text("these are only some notes")
    with pytest.raises(Problem, match="no SQLite database"):
        address.check(f"sqlite:///{tmp_path}/notes.db?timeout=3")
    assert time.monotonic() - begin < 1
    (tmp_path / "new.db").touch()
    for fine in ("new.db", "absent.db"):
        address.check(f"sqlite:///{tmp_path}/{fine}")


@pytest.mark.parametrize("there", [True, False])
def test_a_store_that_may_not_be_written_is_refused(tmp_path, monkeypatch, there):
    if there:
        (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(address.os, "access", lambda *_: False)  # the tests may run as root, who may write everything
    with pytest.raises(Problem, match="may not be written"):
        address.check(address.store_uri(tmp_path))


def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} is taken") as caught:
            address.ui_command(tmp_path, port)
    assert f"http://127.0.0.1:{port}/" in str(caught.value) and "--port" in str(caught.value)
    address.ui_command(tmp_path, port)
