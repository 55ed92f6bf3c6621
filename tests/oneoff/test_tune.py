"""`harness tune`: a sparse model folder in, another out; each mistake before anything heavy."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from harness import models, rooms
from harness.pruning import keep

TEXTS = ["Once upon a time there was a cat. It sat on a mat and slept."] * 3
FAST = ("--steps", 2, "--batch-size", 2, "--lr", "1e-3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of a dense tiny llama, and of a pruned one with its mask."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("dense", "sparse")}
    model, processor = rooms.load("model", "llama").tiny(TEXTS, seed=0)
    models.save(model, processor, made["dense"])
    linears = [linear for block in models.blocks(model) for linear in block.linears]
    keeps = {x.name: x.module.weight.abs() > x.module.weight.abs().median() for x in linears}
    keep.apply(model, keeps)
    models.save(model, processor, made["sparse"])
    keep.save(made["sparse"], keeps)
    return made


@pytest.fixture
def ids(tmp_path):
    """A file of 6 rows of 12 token ids."""
    rows = torch.randint(4, 60, (6, 12), generator=torch.Generator().manual_seed(0)).tolist()
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path


def test_the_folder_is_a_plain_model_whose_zeros_stayed(harness, folders, ids, tmp_path):
    out = tmp_path / "deep" / "tuned"
    status, said, err = harness(
        *("tune", folders["sparse"], "--out", out, "--data", ids, *FAST),
        *("--method", "sparse_peft:rank=4", "--loss", "squarehead", "--teacher", folders["dense"]),
    )
    assert status == 0, err
    plain, keeps = transformers.AutoModelForCausalLM.from_pretrained(out), keep.load(out)
    transformers.AutoTokenizer.from_pretrained(out)
    keep.verify(plain, keeps)
    report = json.loads((out / "tune.json").read_text())
    assert report["steps"] == 2 and report["sparsity"]["after"] == pytest.approx(0.5, abs=0.01)
    assert str(out) in said and "peak memory" in said
    assert [path.name for path in out.parent.iterdir()] == ["tuned"]


def test_two_processes_tune_together(harness, folders, ids, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    found = []
    for name, more in (("one", ()), ("two", ("--processes", 2, "--parallel", "fsdp"))):
        given = ("tune", folders["sparse"], "--out", tmp_path / name, "--data", ids, *FAST, *more)
        status, _, err = harness(*given)
        assert status == 0, err
        found.append(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict())
    report = json.loads((tmp_path / "two" / "tune.json").read_text())
    assert (report["processes"], report["parallel"]) == (2, "fsdp")
    assert all(float((a - found[1][name]).norm()) < 1e-3 * float(a.norm()) for name, a in found[0].items())
    status, _, err = harness(
        "tune", folders["sparse"], "--out", tmp_path / "x", "--data", ids, *FAST, "--parallel", "dp"
    )
    assert status == 2 and "unknown way to train in parallel 'dp'" in err


def test_masks_may_be_the_exact_zeros(harness, folders, ids, tmp_path):
    bare = tmp_path / "bare"
    model, processor = models.load(folders["sparse"]), models.load_processor(folders["sparse"])
    models.save(model, processor, bare)
    given = ("tune", bare, "--out", tmp_path / "out", "--data", ids, *FAST)
    status, _, err = harness(*given)
    assert status == 2 and "there is no mask beside this model" in err
    status, _, err = harness(*given, "--mask-from-zeros")
    assert status == 0, err
    ours, theirs = keep.load(tmp_path / "out"), keep.load(folders["sparse"])
    assert all(torch.equal(ours[name], mask) for name, mask in theirs.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--loss", "squarehead"), "learns from a teacher, and none is given"),
        (("--teacher", "{dense}"), "looks at no teacher"),
        (("--method", "masqued"), "unknown method 'masqued'"),
        (("--method", "lora_star"), "this prunes too"),
        (("--method", "losa:mean=3.0"), "losa looks at mean after a pruning of a ramp, and there is none"),
        (("--method", "lors:init=kaiming,samples=9"), "lors:init=kaiming does not look at samples"),
        (("--loss", "cross_entropy + 0*squarehead", "--teacher", "{dense}"), "looks at no teacher"),
        (("--parallel", "fsdp"), "over several processes, and there is one"),
        (("--epochs", "1"), "give exactly one of steps, epochs and tokens"),
        (("--mask-from-zeros", "--task", "translation"), "translation"),
    ],
)
def test_a_mistake_is_told_before_anything_is_loaded(harness, folders, ids, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the model was loaded"))
    more = [word.format(dense=folders["dense"]) for word in arguments]
    status, _, err = harness("tune", folders["sparse"], "--out", tmp_path / "out", "--data", ids, *FAST, *more)
    assert status == 2 and words in err
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_pruned_itself_is_told_of(harness, folders, ids, tmp_path):
    given = ("tune", folders["sparse"], "--data", ids, *FAST, "--loss", "kl")
    noted = {}
    for name in ("dense", "sparse"):
        status, said, err = harness(*given, "--out", tmp_path / name, "--teacher", folders[name])
        assert status == 0, err
        noted[name] = "what is learned from is a pruned model, no dense one" in said
    assert noted == {"dense": False, "sparse": True}


def test_a_dense_model_has_no_zeros_to_take_masks_from(harness, folders, ids, tmp_path):
    given = ("tune", folders["dense"], "--out", tmp_path / "out", "--data", ids, *FAST, "--mask-from-zeros")
    status, _, err = harness(*given)
    assert status == 2 and "no layer of this model has 10% zeros" in err
