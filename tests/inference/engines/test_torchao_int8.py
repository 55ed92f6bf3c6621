"""torchao's int8: why it cannot be used where it is absent, or made for another PyTorch."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from harness import rooms
from harness.inference.measure import Setting, measure
from harness.problems import Problem


def test_without_torchao_it_is_told(monkeypatch, tiny_models):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchao" else find(name))
    assert rooms.bind("engine", "torchao_int8", "available")() == "not installed: torchao"
    with pytest.raises(Problem, match="torchao_int8 cannot run here: not installed: torchao"):
        next(measure(tiny_models.tiny("llama")[0], ["torchao_int8"], Setting(1, 4, 3, repeats=1)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("raise AttributeError('torch has no frobnicate.\\nUpgrade it.')", "torch has no frobnicate"),
        ("", "cannot import name 'Int8Tensor' from 'torchao.quantization'"),
    ],
)
def test_a_torchao_of_another_pytorch_is_told(tmp_path, monkeypatch, content, said):
    for folder in ("torchao", "torchao-0.1.dist-info"):
        (tmp_path / folder).mkdir()
    (tmp_path / "torchao" / "__init__.py").write_text("")
    (tmp_path / "torchao" / "quantization.py").write_text(content)
    (tmp_path / "torchao-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torchao\nVersion: 0.1\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    found = rooms.bind("engine", "torchao_int8", "available")()
    for name in ("torchao", "torchao.quantization"):
        sys.modules.pop(name, None)
    assert found.startswith("torchao 0.1 does not go with PyTorch ") and said in found and "Upgrade" not in found
