from __future__ import annotations

import errno
import json
import os
import time

import pytest

from harness.runs import lease

TAKE = """
import sys, time
from pathlib import Path
from harness.runs import lease
root, rounds, start = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
won = []
for number in range(rounds):
    while time.time() < start + number * 0.02:
        pass
    if held := lease.take(root / str(number)):
        won.append((number, held))
print(*(number for number, _ in won), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def dead(tmp_path, python):
    """The lease of a process that is gone."""
    script = "import json; from harness.runs import lease; print(json.dumps(lease._me()))"
    return python(script).communicate()[0]


def test_one_holder_at_a_time(tmp_path):
    held = lease.take(tmp_path)
    assert held.held() and lease.take(tmp_path) is None
    assert lease.holder(tmp_path).startswith(f"process {os.getpid()} on ")
    held.release()
    assert lease.holder(tmp_path) is None and not held.held() and not list(tmp_path.iterdir())
    lease.take(tmp_path).release()


@pytest.mark.parametrize("left", ["nothing", "a stale lease"])
def test_of_racing_processes_exactly_one_wins(tmp_path, python, dead, left):
    rounds = 40
    for number in range(rounds):
        (tmp_path / str(number)).mkdir()
        if left == "a stale lease":
            (tmp_path / str(number) / "lease-3.json").write_text(dead)
    start = time.time() + 1.5
    racers = [python(TAKE, tmp_path, rounds, start, stdin=-1) for _ in range(3)]
    won = [[int(number) for number in racer.stdout.readline().split()] for racer in racers]
    holders = [lease.holder(tmp_path / str(number)) for number in range(rounds)]
    for racer in racers:
        racer.communicate("")
    assert sorted(number for numbers in won for number in numbers) == list(range(rounds))
    for racer, numbers in zip(racers, won, strict=True):
        assert all(holders[number].startswith(f"process {racer.pid} on ") for number in numbers)


def test_a_process_that_is_gone_holds_nothing(tmp_path, dead):
    (tmp_path / "lease-1.json").write_text(dead)
    assert lease.holder(tmp_path) is None
    held = lease.take(tmp_path)
    assert held.held() and [path.name for path in tmp_path.iterdir()] == ["lease-2.json"]
    held.release()


def test_a_reused_process_id_holds_nothing(tmp_path):
    (tmp_path / "lease-1.json").write_text(json.dumps({**lease._me(), "started": 0.0}))
    assert lease.holder(tmp_path) is None


@pytest.mark.parametrize("text", ['{"pid": 1, "started": 0.0, "host": "lab-3", "machine": "lab-3/other boot"}', ""])
def test_elsewhere_the_age_of_the_last_sign_of_life_decides(tmp_path, text):
    path = tmp_path / "lease-1.json"
    path.write_text(text)
    assert lease.holder(tmp_path) == ("process 1 on lab-3" if text else "another process")
    assert lease.take(tmp_path) is None
    limit = lease.STALE if text else lease.BEAT
    os.utime(path, times=(time.time() - limit + 2,) * 2)
    assert lease.holder(tmp_path)
    os.utime(path, times=(time.time() - limit - 2,) * 2)
    assert lease.holder(tmp_path) is None
    lease.take(tmp_path).release()


def test_a_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    held = lease.take(tmp_path)
    path = tmp_path / "lease-1.json"
    os.utime(path, times=(0, 0))
    deadline = time.time() + 5
    while path.stat().st_mtime == 0 and time.time() < deadline:
        time.sleep(0.01)
    assert time.time() - path.stat().st_mtime < 5
    held.release()


def test_a_heart_goes_on_after_a_beat_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    touch, failed = os.utime, []

    def fail_once(path, **options):
        if not failed and not options:
            failed.append(path)
            raise OSError(errno.ESTALE, "the share is away")
        touch(path, **options)

    monkeypatch.setattr(lease.os, "utime", fail_once)
    held = lease.take(tmp_path)
    deadline = time.time() + 5
    while not failed and time.time() < deadline:
        time.sleep(0.01)
    os.utime(tmp_path / "lease-1.json", times=(0, 0))
    while (tmp_path / "lease-1.json").stat().st_mtime == 0 and time.time() < deadline:
        time.sleep(0.01)
    assert failed and held._thread.is_alive() and (tmp_path / "lease-1.json").stat().st_mtime > 0
    held.release()


def test_a_lost_lease_is_noticed(tmp_path):
    held = lease.take(tmp_path)
    (tmp_path / "lease-1.json").rename(tmp_path / "lease-2.json")
    assert not held.held()
    held.release()
    assert (tmp_path / "lease-2.json").is_file()


def test_who_finds_itself_not_alone_withdraws(tmp_path, monkeypatch):
    listed = lease._leases
    (tmp_path / "lease-7.json").write_text(json.dumps(lease._me()))
    monkeypatch.setattr(
        lease, "_leases", lambda folder: monkeypatch.undo() or [p for p in listed(folder) if "7" not in p.name]
    )
    assert lease.take(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lease-7.json"]
