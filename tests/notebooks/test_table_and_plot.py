from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from harness.tracking import record

ROOT = Path(__file__).parents[2]
PATH = ROOT / "notebooks" / "table_and_plot.ipynb"


@pytest.fixture
def samples():
    path = ROOT / "tests" / "tracking" / "samples.py"
    spec = importlib.util.spec_from_file_location("notebook_samples", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_kept_without_outputs():
    for cell in nbformat.read(PATH, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_it_rebuilds_a_table_and_its_plot_from_records_alone(samples, tmp_path, monkeypatch):
    entry = samples.entry(tmp_path / "experiments")
    for one in samples.plain(entry, lambda cell: 20.0 + (cell.seed or 0)):
        curves = {"tune": {"step": [1, 2], "loss": [3.0, 1.5]}} if one["seed"] == 1 else {}
        record.write({**one, "curves": curves}, tmp_path / "elsewhere" / "records")
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    table = next(data["text/markdown"] for data in shown if "text/markdown" in data)
    assert "| 50% | 20.00 | not given |  | 21.00 ± 0.58 | 21.00 ± 0.58 | 25.50 | −4.50 |" in table
    assert sum("image/png" in data for data in shown) == 1
    assert any("loss 3.0 -> 1.5 in 2 steps" in output.get("text", "") for output in outputs)
