from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.inference.kernels import build, isa, sources
from harness.problems import Problem

needs_compiler = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    build._library.cache_clear()
    build._compiler.cache_clear()
    yield tmp_path / "kernels"
    build._library.cache_clear()
    build._compiler.cache_clear()


@needs_compiler
def test_a_library_is_compiled_once_and_again_when_a_source_changes(empty, tmp_path, monkeypatch):
    build.library("stream")
    (made,) = empty.glob("*.so")
    stamp = made.stat().st_mtime_ns
    build._library.cache_clear()
    build.library("stream")
    assert made.stat().st_mtime_ns == stamp
    changed = tmp_path / "sources"
    changed.mkdir()
    for path in sources.FOLDER.iterdir():
        (changed / path.name).write_text(path.read_text() + "\n")
    monkeypatch.setattr(sources, "FOLDER", changed)
    build._library.cache_clear()
    build.library("stream")
    assert len(list(empty.glob("*.so"))) == 2


@needs_compiler
def test_processes_at_once_make_one_library(empty):
    code = "from harness.inference.kernels import build; build.library('stream')"
    environment = {**os.environ, "HARNESS_CACHE": str(empty.parent)}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(list(empty.glob("*.so"))) == 1


@needs_compiler
def test_a_source_that_does_not_compile_is_a_problem_with_what_the_compiler_said(empty, tmp_path, monkeypatch):
    (tmp_path / "broken.cpp").write_text("int broken(")
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    with pytest.raises(Problem, match=r"cannot compile broken\.cpp(.|\n)*error"):
        build.library("broken")
    assert not list(empty.glob("*.so"))


def test_no_compiler_is_a_reason(empty, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "there is no C++ compiler" in build.reason()
    with pytest.raises(Problem, match="no C\\+\\+ compiler"):
        build.library("stream")


@needs_compiler
def test_a_cache_that_cannot_be_written_is_a_problem(empty, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(Problem, match="cannot write"):
        build.library("stream")


def test_limits_hold_back_and_are_lifted():
    best = isa.best()
    with isa.limit("portable"):
        assert isa.best() == "portable"
    assert isa.best() == best
    with pytest.raises(Problem, match="unknown build"), isa.limit("sse"):
        pass


def test_a_build_that_the_processor_does_not_run_is_refused(monkeypatch):
    monkeypatch.setattr(isa, "_features", lambda: frozenset({"avx2", "fma", "f16c", "bmi2"}))
    assert isa.best() == "portable"
    with pytest.raises(Problem, match="it lacks popcnt"), isa.limit("avx2"):
        pass
