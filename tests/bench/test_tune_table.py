from __future__ import annotations

import pytest

from harness.bench import measure, tune_table

TIMES = {
    "lora": 2.0,
    "peft": 2.0,
    "naive": 3.0,
    "lors": 2.2,
    "masked": 4.0,
    "squarehead": 7.0,
    "teacher forward": 2.0,
    "seft": 3.0,
}
SAVED = {"lora": 100, "peft": 100, "naive": 200, "lors": 99, "seft": 99}


@pytest.fixture
def said():
    """A record of one workload, its numbers simple."""
    rows = [
        {
            "name": name,
            "runs": [time, 2 * time, 4 * time],
            "seconds": measure.spread([time, 2 * time, 4 * time]),
            "flops": 2e12,
            "saved_bytes": SAVED.get(name, 0) * 2**20,
            "held_bytes": 10 * 2**20,
            "peak_bytes": (210 if name == "seft" else 110) * 2**20,
            "index_bytes": (30 if name == "seft" else 0) * 2**20,
        }
        for name, time in TIMES.items()
    ]
    machine = {"cpu": "a cpu", "cores": 2, "memory_gib": 4, "gpu": None}
    given = {"tokens": 24, "rank": 4, "sparsity": 0.5, "threads": 1, "environment": machine}
    given |= {"precision": "fp32", "compiled": False}
    return {**given, "workloads": [{"model": "folder:it@sha256:0", "lanes": rows}]}


def test_every_lane_has_its_times_and_bytes_and_ratios_to_lora(said):
    shown = tune_table.table(said)
    assert "sequence of 24 tokens, 50% zeros, rank 4, fp32. a cpu, 1 of 2 cores, 4 GiB." in shown
    assert "folder:it, 3 interleaved rounds" in shown
    cells = "4.400 (2.200 to 8.800) | 1.100 (1.100 to 1.100) | 2.000 | 99.0 | 0.990 | 110.0 | 1.000"
    assert f"| lors | {cells} |" in shown


def test_targets_are_met_or_missed_and_left_out_without_their_lanes(said):
    shown = tune_table.table(said)
    assert "| bytes saved for backward: lors / (peft) | 1.05 | 0.990 | met |" in shown
    assert "| bytes saved for backward: lors / (naive) | 0.7 | 0.495 | met |" in shown
    assert "| step time: lors / (peft) | 1.15 | 1.100 (1.100 to 1.100) | met |" in shown
    assert "| step time: squarehead / (masked + teacher forward) | 1.05 | 1.167 (1.167 to 1.167) | missed |" in shown
    assert "dense" not in shown


def test_what_a_method_holds_counts_against_its_peak_but_for_its_index_arrays(said):
    target = "| peak memory: seft / (peft + its index arrays) | 1.0 |"
    assert f"{target} 1.500 | missed |" in tune_table.table(said)
    rows = {row["name"]: row for row in said["workloads"][0]["lanes"]}
    rows["seft"]["held_bytes"] = rows["seft"]["peak_bytes"] - 1
    assert f"{target} 1.500 | missed |" in tune_table.table(said)
    rows["seft"]["peak_bytes"] = 140 * 2**20
    assert f"{target} 1.000 | met |" in tune_table.table(said)


def test_how_it_was_computed_is_said(said):
    shown = tune_table.table({**said, "precision": "bf16", "compiled": True})
    assert "rank 4, bf16, blocks compiled. a cpu" in shown
    said["environment"]["gpu"] = "a gpu"
    assert "rank 4, fp32. a gpu, a cpu, 1 of 2 cores" in tune_table.table(said)


def test_ratios_are_of_the_same_round():
    rows = [{"name": n, "runs": r} for n, r in (("a", [2.0, 4.0, 9.0]), ("b", [1.0, 2.0, 3.0]), ("c", [1.0, 0.0, 0.0]))]
    assert tune_table.ratio(rows, "a", ["b"]) == {"median": 2, "min": 2, "max": 3}
    assert tune_table.ratio(rows, "a", ["b", "c"]) == {"median": 2, "min": 1, "max": 3}
