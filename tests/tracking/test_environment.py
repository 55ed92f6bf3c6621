from __future__ import annotations

import getpass
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking import environment as module
from harness.tracking.environment import environment


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "a.py").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_it_says_what_can_change_a_number():
    said = environment()
    assert said["python"] == ".".join(map(str, sys.version_info[:3]))
    assert said["cores"] >= 1
    assert said["memory_gib"] > 0
    assert {"torch", "transformers", "sacrebleu"} <= said["packages"].keys()


def test_it_names_no_host_user_or_path():
    text = json.dumps(environment())
    assert str(Path.home()) + "/" not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_it_imports_no_torch_and_tells_threads_only_when_there_is_torch():
    script = (
        "import sys; from harness.tracking.environment import environment;"
        "assert 'threads' not in environment(); assert 'torch' not in sys.modules;"
        "import torch; assert environment()['threads'] == torch.get_num_threads()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(module.__file__).parents[2])


def test_a_commit_is_dirty_when_code_differs_and_not_when_results_do(checkout):
    clean = module._commit(checkout)
    assert len(clean["sha"]) == 40
    assert not clean["dirty"]
    (checkout / "results").mkdir()
    (checkout / "results" / "r.json").write_text("{}")
    assert not module._commit(checkout)["dirty"]
    (checkout / "harness" / "new.py").write_text("2")
    assert module._commit(checkout)["dirty"]


def test_there_is_no_commit_outside_a_checkout_nor_in_one_that_only_contains_us(tmp_path, checkout):
    inner = checkout / "inner"
    inner.mkdir()
    assert module._commit(inner) is None
    assert module._commit(tmp_path / "nowhere") is None
