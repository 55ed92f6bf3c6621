from __future__ import annotations

import ctypes
from types import SimpleNamespace

from harness import memory


def test_freed_memory_is_kept_where_glibc_is_and_nothing_happens_elsewhere(monkeypatch):
    asked = []
    glibc = SimpleNamespace(mallopt=lambda which, size: asked.append((which, size)))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: glibc)
    memory.keep_freed()
    assert asked == [(-1, 1 << 30), (-3, 1 << 30)]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    memory.keep_freed()
