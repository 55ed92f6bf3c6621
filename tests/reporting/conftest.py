from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from harness.reporting.compare import compare


@pytest.fixture(scope="session")
def samples():
    """The module of the made-up experiment."""
    path = Path(__file__).parents[1] / "tracking" / "samples.py"
    spec = importlib.util.spec_from_file_location("reporting_samples", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def level(cell):
    """A score that falls with sparsity, less so with SquareHead, and differs by 1 from seed to seed."""
    lost = {None: 1.0, "cross_entropy": 0.5, "squarehead": 0.25}[cell.axes.get("tune.loss")]
    return 30 - 20 * lost * (cell.values.get("prune.sparsity", 0) or 0) + (cell.seed or 0)


@pytest.fixture(scope="session")
def make(samples, tmp_path_factory):
    """Makes the comparison of the made-up experiment; `replace` changes its text and `records` its records."""

    def make(*replace, text=samples.YAML, scale="paper", value=level, records=lambda found: found, **options):
        for old, new in replace:
            assert old in text
            text = text.replace(old, new)
        entry = samples.entry(tmp_path_factory.mktemp("entry"), scale, text)
        return compare(entry, records(samples.plain(entry, value, **options)))

    return make
