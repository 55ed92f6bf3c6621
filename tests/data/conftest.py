from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    """The digests and the `datasets` library's Arrow files go to this test's folder."""
    import datasets

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Returns a function that writes a data set into a mirror: `put(name, {config: {split: rows}})`."""
    import datasets

    root = tmp_path / "mirror"
    root.mkdir()
    monkeypatch.setenv("HARNESS_MIRROR", str(root))

    def write(name: str, configs: dict[str, dict[str, list[dict]]]) -> Path:
        folder = root / "datasets" / name
        lines = ["---", "configs:"]
        for config, splits in configs.items():
            lines += [f"- config_name: {config}", "  data_files:"]
            for split, rows in splits.items():
                lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
                (folder / config).mkdir(parents=True, exist_ok=True)
                datasets.Dataset.from_list(rows).to_parquet(folder / config / f"{split}.parquet")
        (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
        return folder

    return write


@pytest.fixture
def real_mirror():
    """Skips unless HARNESS_MIRROR names the mirror with the real data."""
    if not os.environ.get("HARNESS_MIRROR"):
        pytest.skip("HARNESS_MIRROR is not set")
