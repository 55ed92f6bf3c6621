from __future__ import annotations

import ctypes
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import memory


def test_freed_memory_is_kept_meanwhile_and_given_back_whatever_happens(monkeypatch):
    asked = []
    glibc = SimpleNamespace(mallopt=lambda *given: asked.append(given), malloc_trim=lambda pad: asked.append("trim"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: glibc)
    with pytest.raises(ZeroDivisionError), memory.freed_kept():
        kept = dict(asked)
        raise ZeroDivisionError
    after = dict(asked[2:-1])
    assert kept.keys() == after.keys() == {-1, -3} and all(kept[which] > after[which] for which in kept)
    assert asked[-1] == "trim"


def test_nothing_happens_without_glibc(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    with memory.freed_kept() as give_back:
        give_back()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_what_is_kept_can_be_given_back_meanwhile():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with memory.freed_kept() as give_back:
        held = [torch.ones(4 << 20) for _ in range(4)]  # 64 MiB
        pin = torch.ones(4)  # behind them, so that they are not the end of the heap
        del held
        kept = resident()
        give_back()
        assert kept - resident() > 48 << 20 and pin.sum() == 4


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_what_is_held_is_what_is_in_use_now():
    device = torch.device("cpu")
    before = memory.held(device)
    one = torch.ones(32 << 20)
    assert memory.held(device) - before > 0.9 * one.nbytes
    size = one.nbytes
    del one
    assert memory.held(device) - before < 0.1 * size


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_a_later_peak_does_not_hold_what_was_freed():
    device = torch.device("cpu")
    with memory.freed_kept():
        for _ in range(3):
            held = [torch.ones(4 << 20) for _ in range(16)]  # 256 MiB
            del held
    memory.reset_peak(device)
    low = memory.peak(device)
    one = torch.ones(32 << 20)
    assert memory.peak(device) - low > 0.9 * one.nbytes
