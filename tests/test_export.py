"""`harness export`: every form is read back as the model it was, or says what it lacks."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from harness import export, exported, models
from harness.inference import onnx, roofline, storage, swap, weights
from harness.inference.formats import pack, unpack
from harness.inference.greedy import follow, generate
from harness.inference.prompts import prompts
from harness.problems import Problem
from harness.quantization.codes import Coded, save
from harness.quantization.grid import spread

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
    loaded = weights.load(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_model_is_read_back(family, made, tmp_path):
    model, processor = made[family]
    export.export(model, processor, tmp_path, "bitmask")
    loaded = weights.load(tmp_path)
    inputs = prompts(model, 2, 6, seed=0)
    tokens = generate(model, inputs, 5).tokens
    torch.testing.assert_close(follow(loaded, inputs, tokens), follow(model, inputs, tokens), rtol=1e-4, atol=1e-5)
    assert roofline.in_memory(loaded) < roofline.in_memory(model)
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id
    assert type(models.load_processor(tmp_path)) is type(processor)
    dense = weights.load(tmp_path, dense=True)
    assert all(torch.equal(tensor, dense.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("format", "precision"), [("slot", "int8"), ("index", "bf16"), ("auto", "int8")])
def test_rounded_weights_are_those_of_the_format(format, precision, made, tmp_path):
    model, processor = made["llama"]
    export.export(model, processor, tmp_path, format, precision)
    dense = weights.load(tmp_path, dense=True)
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
    assert not exported.is_packed(tmp_path)


def test_a_packed_file_is_smaller_on_the_disk(made, tmp_path):
    sizes = {}
    for precision in ("fp32", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        export.export(*made["llama"], folder, "bitmask", precision)
        sizes[precision] = (folder / exported.PACKED).stat().st_size
    weights = sum(made["llama"][0].get_submodule(name).weight.numel() for name in swap.prunable(made["llama"][0]))
    assert sizes["fp32"] < weights * (4 * 0.31 + 1 / 8) * 1.15
    assert sizes["int8"] < weights * (0.31 + 1 / 8) * 1.3


def test_a_folder_that_is_not_whole_is_named(made, tmp_path):
    export.export(*made["llama"], tmp_path, "bitmask")
    rest = load_file(tmp_path / exported.REST)
    rest.pop("model.norm.weight")
    save_file(rest, tmp_path / exported.REST)
    exported.describe(tmp_path, exported.described(tmp_path))
    with pytest.raises(Problem, match=r"lacks model\.norm\.weight"):
        weights.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (exported.REST, b"1234", "not packed cannot be read"),
        (exported.PACKED, b"1234", "damaged packed weights"),
        ("config.json", b"{", "cannot load the config"),
    ],
)
def test_a_file_that_was_written_damaged_is_a_problem(file, content, said, made, tmp_path):
    export.export(*made["llama"], tmp_path, "bitmask")
    (tmp_path / file).write_bytes(content)
    exported.describe(tmp_path, exported.described(tmp_path))
    with pytest.raises(Problem, match=said):
        weights.load(tmp_path)


def test_a_flipped_byte_of_a_plain_export_is_found(made, tmp_path):
    export.export(*made["llama"], tmp_path, "hf-dense")
    weights.dense_weights(tmp_path)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-9] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Problem, match="not what was exported"):
        weights.dense_weights(tmp_path)


def test_what_cannot_be_read_back_says_why(made, tmp_path):
    export.export(*made["llama"], tmp_path / "packed", "bitmask")
    (tmp_path / "packed" / exported.FILE).unlink()
    with pytest.raises(Problem, match=r"export\.json is not"):
        weights.found(str(tmp_path / "packed"))
    (tmp_path / "graph").mkdir()
    exported.describe(tmp_path / "graph", {"format": exported.GRAPH, "precision": "fp32"})
    with pytest.raises(Problem, match="ONNX export is not read back"):
        weights.found(str(tmp_path / "graph"))


@pytest.mark.parametrize("file", [exported.REST, exported.PACKED, "config.json", "tokenizer.json"])
@pytest.mark.parametrize("dense", [True, False])
def test_a_byte_that_was_flipped_is_found(file, dense, made, tmp_path):
    export.export(*made["llama"], tmp_path, "bitmask", "int8")
    content = bytearray((tmp_path / file).read_bytes())
    content[-9] ^= 1
    (tmp_path / file).write_bytes(content)
    with pytest.raises(Problem, match="this file is not what was exported") as problem:
        weights.load(tmp_path, dense=dense)
    assert str(tmp_path / file) in str(problem.value) and "export the model again" in str(problem.value)


@pytest.mark.parametrize(
    ("says", "said"),
    [
        ({"format": "slot:slots=4", "precision": "fp32"}, r"in bitmask int8, where export.json says slot:slots=4 fp32"),
        ({"precision": "bf16"}, r"model.layers.0.\S+ in bitmask int8, where export.json says bitmask bf16"),
    ],
)
def test_a_description_of_another_form_is_a_problem(says, said, made, tmp_path):
    export.export(*made["llama"], tmp_path, "bitmask", "int8")
    exported.describe(tmp_path, exported.described(tmp_path) | says)
    with pytest.raises(Problem, match=said):
        weights.load(tmp_path)


@pytest.fixture
def quantised(made, tmp_path):
    """Quantises the llama to a folder, as its stage writes one; returns a function of the grid's options."""

    def make(**grid):
        model, processor = copy.deepcopy(made["llama"][0]), made["llama"][1]
        layers = {}
        for name in swap.prunable(model):
            weight = model.get_submodule(name).weight
            own = spread(weight.detach() * 0.9, **{"bits": 8} | grid)  # beyond its ends, as rounding by GPTQ goes
            codes = own.encode(weight)
            weight.data.copy_(own.decode(codes))
            layers[name] = Coded(codes, own)
        models.save(model, processor, tmp_path / "quantised")
        save(tmp_path / "quantised", layers)
        return layers

    return make


@pytest.mark.parametrize("form", ["bitmask", "slot", "auto"])
def test_a_quantised_model_is_packed_with_its_codes_and_scales(form, quantised, harness, tmp_path):
    layers = quantised()
    assert any(-128 in layer.codes for layer in layers.values())
    given = ("--format", form, "--precision", "int8", "--out", tmp_path / "out")
    status, _, err = harness("export", tmp_path / "quantised", *given)
    assert status == 0, err
    packed = storage.load(tmp_path / "out" / exported.PACKED)
    for name, layer in layers.items():
        assert torch.equal(packed[name].tensors["scales"], layer.grid.scale)
        assert torch.equal(unpack(packed[name]), layer.grid.decode(layer.codes))
    loaded, dense = weights.load(tmp_path / "out"), weights.load(tmp_path / "out", dense=True)
    inputs = prompts(dense, 2, 6, seed=0)
    tokens = generate(dense, inputs, 5).tokens
    torch.testing.assert_close(follow(loaded, inputs, tokens), follow(dense, inputs, tokens), rtol=1e-2, atol=1e-3)
    again = ("--format", "index", "--precision", "int8", "--out", tmp_path / "again")
    status, _, err = harness("export", tmp_path / "out", *again)
    assert status == 0, err
    for name, other in storage.load(tmp_path / "again" / exported.PACKED).items():
        assert torch.equal(unpack(other), unpack(packed[name]))


@pytest.mark.parametrize(
    ("grid", "form", "fits"),
    [
        ({"group": 64}, "bitmask", None),
        ({"group": 64}, "auto", None),
        ({"bits": 4, "symmetric": False}, "slot", None),
        ({"group": 64}, "slot", "format 'slot' has one scale a row"),
        ({"group": 32}, "bitmask", "quantised with a scale for 32 columns, and int8 has one for multiples of 64"),
        ({"symmetric": False}, "bitmask", "quantised to codes from -?[0-9]+ to [0-9]+ about 0"),
    ],
)
def test_a_grid_that_int8_has_not_is_refused(grid, form, fits, quantised, harness, tmp_path):
    layers = quantised(**grid)
    given = ("--format", form, "--precision", "int8", "--out", tmp_path / "out")
    status, _, err = harness("export", tmp_path / "quantised", *given)
    assert (status == 0) == (fits is None), err
    if fits:
        assert re.search(rf"error: model\.layers\.0\S+: .*{fits}", err) and not (tmp_path / "out").exists()
        return
    loaded = weights.load(tmp_path / "out", dense=True)
    for name, layer in layers.items():
        assert torch.equal(loaded.get_submodule(name).weight, layer.grid.decode(layer.codes))


def test_groups_have_scales_of_their_own(harness, made, tmp_path):
    model, processor = made["llama"]
    models.save(model, processor, tmp_path / "model")
    given = ("--format", "auto", "--precision", "int8", "--group", 64, "--out", tmp_path / "out")
    status, _, err = harness("export", tmp_path / "model", *given)
    assert status == 0 and exported.described(tmp_path / "out")["group"] == 64, err
    dense, loaded = weights.load(tmp_path / "out", dense=True), weights.load(tmp_path / "out")
    for name in swap.prunable(model):
        weight = model.get_submodule(name).weight
        assert torch.equal(dense.get_submodule(name).weight, unpack(pack(weight, "dense", "int8", group=64)))
    inputs = prompts(model, 2, 6, seed=0)
    tokens = generate(dense, inputs, 5).tokens
    torch.testing.assert_close(follow(loaded, inputs, tokens), follow(dense, inputs, tokens), rtol=1e-2, atol=1e-3)


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
    exported.describe(tmp_path, exported.described(tmp_path))
    with pytest.raises(Problem, match=said):
        weights.load(tmp_path, dense=dense)


def test_a_model_without_an_output_layer_is_told_so_first(made, tmp_path, monkeypatch):
    monkeypatch.setattr(swap, "head", lambda model: None)
    monkeypatch.setattr(export, "_packed", lambda *_: pytest.fail("a layer was packed"))
    with pytest.raises(Problem, match="LlamaForCausalLM has no linear output layer"):
        export.export(*made["llama"], tmp_path, "bitmask", head="int8")
    assert not list(tmp_path.iterdir())


def test_onnx_says_what_to_install(made, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Problem, match="pip install onnx onnxscript"):
        export.export(*made["llama"], tmp_path, "onnx")


@pytest.mark.parametrize(
    ("format", "precision", "said"),
    [
        ("slot", "int8", "format 'slot' has one scale a row"),
        ("2:4", "int8", "format 'nm' has one scale a row"),
        ("bitmask", "fp16", "fp16 weights have no scales"),
        ("hf-dense", "fp32", "fp32 weights have no scales"),
    ],
)
def test_a_form_that_has_no_groups(format, precision, said):
    with pytest.raises(Problem, match=said):
        export.check(format, precision, group=64)


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
    found = {(each["engine"].partition(":")[0], each["batch"]) for each in report["break_even"]}
    assert found == {("packed", 1), ("packed", 2), ("torch_csr", 1), ("torch_csr", 2)}
    assert {form["format"] for form in report["forms"]} == {"hf-dense", "bitmask"}
    assert "packed:format=bitmask" in said and "MiB on disk" in said
    assert str(tmp_path) not in json.dumps(report["measurements"])
