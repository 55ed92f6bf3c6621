"""`harness export`: every form is read back as the model it was, or says what it lacks."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import transformers

from harness import export, models
from harness.inference import onnx, roofline, swap
from harness.inference.formats import pack, unpack
from harness.inference.greedy import follow, generate
from harness.inference.prompts import prompts
from harness.problems import Problem

FAMILIES = ("t5", "whisper", "mpt", "llama", "opt")


@pytest.fixture(scope="module")
def made(tiny_models):
    """The tiny model of each family with 70% zeros, and its processor."""

    def make(family):
        model, processor = tiny_models.tiny(family)
        draw = torch.Generator().manual_seed(1)
        for name in swap.prunable(model):
            weight = model.get_submodule(name).weight.detach()
            weight *= torch.rand(weight.shape, generator=draw) > 0.7
        return model, processor

    return {family: make(family) for family in FAMILIES}


def test_an_output_layer_that_was_parted_from_the_embedding_stays_so(made, tmp_path):
    model, processor = copy.deepcopy(made["llama"][0]), made["llama"][1]
    model.config.tie_word_embeddings = True
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    export.export(model, processor, tmp_path, "bitmask")
    loaded = export.load(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_model_is_read_back(family, made, tmp_path):
    model, processor = made[family]
    export.export(model, processor, tmp_path, "bitmask")
    loaded = export.load(tmp_path)
    inputs = prompts(model, 2, 6, seed=0)
    tokens = generate(model, inputs, 5).tokens
    torch.testing.assert_close(follow(loaded, inputs, tokens), follow(model, inputs, tokens), rtol=1e-4, atol=1e-5)
    assert roofline.in_memory(loaded) < roofline.in_memory(model)
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id
    assert type(models.load_processor(tmp_path)) is type(processor)
    dense = export.load(tmp_path, dense=True)
    assert all(torch.equal(tensor, dense.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("format", "precision"), [("slot", "int8"), ("index", "bf16"), ("auto", "int8")])
def test_rounded_weights_are_those_of_the_format(format, precision, made, tmp_path):
    model, processor = made["llama"]
    export.export(model, processor, tmp_path, format, precision)
    dense = export.load(tmp_path, dense=True)
    for name in swap.prunable(model):
        expected = unpack(pack(model.get_submodule(name).weight, "dense", precision))
        assert torch.equal(dense.get_submodule(name).weight, expected)
    assert torch.equal(dense.lm_head.weight, model.lm_head.weight)
    assert dense.lm_head.weight is dense.model.embed_tokens.weight


def test_plain_transformers_loads_the_dense_form(made, tmp_path):
    model, processor = made["mpt"]
    export.export(model, processor, tmp_path, "hf-dense")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not export.is_packed(tmp_path)


def test_a_packed_file_is_smaller_on_the_disk(made, tmp_path):
    sizes = {}
    for precision in ("fp32", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        export.export(*made["llama"], folder, "bitmask", precision)
        sizes[precision] = (folder / export.PACKED).stat().st_size
    weights = sum(made["llama"][0].get_submodule(name).weight.numel() for name in swap.prunable(made["llama"][0]))
    assert sizes["fp32"] < weights * (4 * 0.31 + 1 / 8) * 1.15
    assert sizes["int8"] < weights * (0.31 + 1 / 8) * 1.3


def test_a_folder_that_is_not_whole_is_named(made, tmp_path):
    from safetensors.torch import load_file, save_file

    export.export(*made["llama"], tmp_path, "bitmask")
    rest = load_file(tmp_path / export.REST)
    rest.pop("model.norm.weight")
    save_file(rest, tmp_path / export.REST)
    with pytest.raises(Problem, match=r"lacks model\.norm\.weight"):
        export.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (export.REST, None, "not packed cannot be read"),
        (export.REST, b"1234", "not packed cannot be read"),
        ("config.json", b"{", "cannot load the config"),
    ],
)
def test_a_damaged_file_is_a_problem(file, content, said, made, tmp_path):
    export.export(*made["llama"], tmp_path, "bitmask")
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(Problem, match=said):
        export.load(tmp_path)


@pytest.mark.parametrize(("format", "precision"), [("2:4", "fp32"), ("bitmask", "fp16")])
def test_a_layer_that_cannot_be_packed_is_named(harness, made, tmp_path, format, precision):
    model, processor = copy.deepcopy(made["llama"][0]), made["llama"][1]
    name = swap.prunable(model)[3]
    for each in swap.prunable(model):
        model.get_submodule(each).weight.data.unflatten(1, (-1, 4))[..., 2:] = 0
    model.get_submodule(name).weight.data[5, 8:11] = 1e9
    models.save(model, processor, tmp_path / "model")
    given = ("--format", format, "--precision", precision, "--out", tmp_path / "out")
    status, _, err = harness("export", tmp_path / "model", *given)
    assert status == 2 and f"error: {name}: " in err, err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_that_nothing_was_written(harness, made, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "export", interrupted)
    models.save(*made["llama"], tmp_path / "model")
    status, _, err = harness("export", tmp_path / "model", "--format", "bitmask", "--out", tmp_path / "out")
    assert status == 2 and "nothing was written" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 7}, r"rest.safetensors has [\w.]+ as \[\d+, 128\], not \[7, 128\]"),
        ({"intermediate_size": 64}, r"packed.safetensors has model.layers.0.mlp.\w+ as \[384, 128\], not \[64, 128\]"),
    ],
)
@pytest.mark.parametrize("dense", [True, False])
def test_a_config_of_another_model_is_a_problem(changes, said, dense, made, tmp_path):
    export.export(*made["llama"], tmp_path, "bitmask")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(Problem, match=said):
        export.load(tmp_path, dense=dense)


def test_onnx_says_what_to_install(made, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Problem, match="pip install onnx onnxscript"):
        export.export(*made["llama"], tmp_path, "onnx")


@pytest.mark.parametrize(
    ("format", "precision", "said"),
    [
        ("bitmsk", "fp32", "did you mean 'bitmask'"),
        ("bitmask", "int4", "unknown precision"),
        ("onnx", "int8", "in fp32"),
        ("auto:x=1", "fp32", "auto has no options"),
        ("hf-dense:x=1", "fp32", "hf-dense has no options"),
    ],
)
def test_a_form_that_there_is_not(format, precision, said):
    with pytest.raises(Problem, match=said):
        export.check(format, precision)


def test_the_command_writes_a_folder_that_measure_reads(harness, made, tmp_path):
    models.save(*made["llama"], tmp_path / "model")
    status, said, err = harness("export", tmp_path / "model", "--format", "bitmask", "--out", tmp_path / "packed")
    assert status == 0 and "bitmask fp32" in said, err
    status, said, err = harness(
        *("measure", tmp_path / "packed", "--engine", "packed:format=bitmask", "--engine", "torch_csr"),
        *("--tokens", 4, "--prompt", 8, "--repeats", 2, "--threads", 1),
        *("--sparsity", 0, "--sparsity", 0.9, "--batch", 1, "--batch", 2, "--out", tmp_path / "speed"),
    )
    assert status == 0, err
    report = json.loads((tmp_path / "speed" / "measure.json").read_text())
    asked = [(each["sparsity"], each["setting"]["batch"]) for each in report["measurements"]]
    assert asked == [(0, 1), (0, 2), (0.9, 1), (0.9, 2)]
    assert report["measurements"][2]["theoretical_flop_ratio"] > report["measurements"][0]["theoretical_flop_ratio"]
    assert len(report["break_even"]) == 4
    assert {form["format"] for form in report["forms"]} == {"hf-dense", "bitmask"}
    assert "packed:format=bitmask" in said and "MiB on disk" in said
    assert str(tmp_path) not in json.dumps(report["measurements"])
