"""Decode steps in compiled code: what transformers computes, for every family, cache and way to generate."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from torch import nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin, StaticCache

from harness import rooms
from harness.inference import native, swap
from harness.inference.agreement import TOLERANCE, agreement, reference
from harness.inference.greedy import Decoder, follow, generate
from harness.inference.kernels import build, isa
from harness.inference.kernels.linear import PackedLinear
from harness.inference.native import cache as memory
from harness.inference.native.stack import NATIVE
from harness.inference.prompts import prompts, start
from harness.inference.roofline import read_by_a_step

FAMILIES = ("llama", "mpt", "opt", "t5", "whisper")
BUILDS = [name for name in isa.FEATURES if isa.has(name)]

pytestmark = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


def thinned(model):
    draw = torch.Generator().manual_seed(2)
    for name in swap.prunable(model):
        weight = model.get_submodule(name).weight.detach()
        weight *= torch.rand(weight.shape, generator=draw) > 0.6
    return model


@pytest.fixture(scope="module")
def dense(tiny_models):
    return {family: thinned(tiny_models.tiny(family)[0]) for family in FAMILIES}


def packed(model, options="format=bitmask"):
    return rooms.bind("engine", f"packed:{options}")(copy.deepcopy(model)).eval()


def steps(model):
    return native.counts(model).get(NATIVE, 0)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_behind_the_prompt_is_native_and_says_what_the_dense_weights_say(family, batch, dense):
    model, inputs = dense[family], prompts(dense[family], batch, 7, seed=0)
    ran = packed(model)
    found = agreement(ran, inputs, reference(model, inputs, 9))
    assert found["logit_error"] <= TOLERANCE and found["greedy_equal"]
    assert steps(ran) == 2 * 8 and sum(native.counts(ran).values()) == 2 * 9


@pytest.mark.parametrize(
    "options",
    [
        "format=slot,precision=int8",
        "format=bitmask,precision=int8,activations=8",
        "format=index,precision=int8,activations=8",
        "format=dense,precision=bf16",
        "format=index,join=false",
    ],
)
@pytest.mark.parametrize("build_name", BUILDS)
def test_every_format_and_build_steps_as_python_does(options, build_name, dense):
    inputs = prompts(dense["llama"], 2, 5, seed=1)
    with isa.limit(build_name):
        ours, theirs = packed(dense["llama"], options), packed(dense["llama"], f"{options},native=false")
        tokens = generate(theirs, inputs, 6).tokens
        off = (follow(ours, inputs, tokens) - follow(theirs, inputs, tokens)).abs().max()
    step = 0.3 if "activations=8" in options else 1e-2 if "int8" in options else 1e-5
    assert off < step  # an activation may be rounded to the next level
    assert steps(ours) == 5 and not native.counts(theirs)


def small(kind, **options):
    shape = {"hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "vocab_size": 60, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 20}
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}ForCausalLM")
    return made(getattr(transformers, f"{kind}Config")(**{**shape, **heads, **options})).eval()


RELATIVES = [
    ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    ("Llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu_pytorch_tanh"}),
    ("Mistral", {"sliding_window": None}),
    ("Qwen2", {}),
    ("Qwen3", {}),
]


@pytest.mark.parametrize("kind, options", RELATIVES)
def test_relatives_of_llama_with_heads_of_odd_widths(kind, options):
    model = small(kind, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    inputs = prompts(model, 2, 6, seed=0)
    ran = packed(model)
    assert agreement(ran, inputs, reference(model, inputs, 8))["logit_error"] <= TOLERANCE
    assert steps(ran) == 14


def test_t5_with_gated_layers(tiny_models):
    config = copy.deepcopy(tiny_models.tiny("t5")[0].config)
    config.feed_forward_proj, config.is_gated_act, config.dense_act_fn = "gated-gelu", True, "gelu_new"
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    inputs = prompts(model, 2, 6, seed=0)
    ran = packed(model)
    assert agreement(ran, inputs, reference(model, inputs, 5))["logit_error"] <= TOLERANCE and steps(ran) == 8


@pytest.mark.parametrize(
    "model, why",
    [
        (lambda: small("Llama", hidden_act="tanh"), "the activation tanh"),
        (
            lambda: small("Llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
            "of type dynamic",
        ),
        (lambda: small("Mistral", sliding_window=8), "a sliding window"),
        (lambda: small("Gemma"), "no program is known for GemmaForCausalLM"),
    ],
)
def test_what_has_no_program_says_so_and_generates_as_before(model, why):
    model = model()
    ran = packed(model, "format=bitmask,native=false")
    assert why in native.install(ran) and not native.counts(ran)
    inputs = prompts(model, 2, 6, seed=0)
    assert agreement(packed(model), inputs, reference(model, inputs, 4))["logit_error"] <= TOLERANCE


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


@pytest.mark.parametrize("join", ["true", "false"])
def test_widths_are_those_of_the_layers_whatever_the_config_says(join):
    model = small("Llama")
    for block, width in zip(model.model.layers, (40, 96), strict=True):
        block.mlp.gate_proj, block.mlp.up_proj = linear(48, width), linear(48, width)
        block.mlp.down_proj = linear(width, 48)
    inputs = prompts(model, 3, 6, seed=0)
    ran = packed(model, f"format=bitmask,join={join}")
    assert agreement(ran, inputs, reference(model, inputs, 8))["logit_error"] <= TOLERANCE and steps(ran) == 14


def test_layers_that_do_not_fit_each_other_have_no_program():
    model = small("Llama")
    model.model.layers[1].mlp.down_proj = linear(80, 48)
    ran = packed(small("Llama"), "format=bitmask,native=false,join=false")
    ran.model.layers[1].mlp.down_proj = PackedLinear.from_linear(model.model.layers[1].mlp.down_proj)
    assert native.install(ran) == "the input of a linear layer of 72 columns in the place of 80"


def test_layers_that_are_not_packed_have_no_program(dense):
    assert "a Linear" in native.install(copy.deepcopy(dense["llama"]))


WAYS = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3, "do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.5, "num_return_sequences": 2},
    "looked up": {"prompt_lookup_num_tokens": 2, "do_sample": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_generate_goes_on_as_without(family, way, dense):
    model = dense[family]
    rows = 1 if way == "looked up" else 2
    inputs = prompts(model, rows, 7, seed=3)
    if family != "whisper":
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["attention_mask"][0, :3] = rows == 1  # padded on the left
    given = {"decoder_input_ids": start(model, rows)} if model.config.is_encoder_decoder else {}
    found = []
    for options in ("format=bitmask", "format=bitmask,native=false"):
        ran = packed(model, options)
        ran.generation_config = GenerationConfig(pad_token_id=0, decoder_start_token_id=0)
        torch.manual_seed(0)
        found.append(GenerationMixin.generate(ran, **inputs, **given, max_new_tokens=12, **WAYS[way]))
        assert way == "looked up" or (steps(ran) > 0) == ("native" not in options)
    assert torch.equal(*found)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_memory_grows_with_the_text(family, dense, monkeypatch):
    monkeypatch.setattr(memory, "ROOM", 2)
    model, inputs = dense[family], prompts(dense[family], 2, 3, seed=0)
    ran = packed(model)
    tokens = generate(model, inputs, 30).tokens
    close(follow(ran, inputs, tokens), follow(model, inputs, tokens))
    assert steps(ran) == 29


def test_long_texts_are_attended_to_by_all_threads(dense, monkeypatch):
    model, inputs = dense["llama"], prompts(dense["llama"], 4, 500, seed=0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert agreement(packed(model), inputs, reference(model, inputs, 4))["logit_error"] <= TOLERANCE


@pytest.mark.parametrize("family", ["llama", "mpt", "opt", "t5"])
def test_masks_and_positions_of_padded_rows(family, dense):
    model = dense[family]
    inputs = prompts(model, 3, 6, seed=0)
    inputs["attention_mask"] = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6, [0] * 5 + [1]])
    ours, theirs = packed(model), packed(model, "format=bitmask,native=false")
    for each in (ours, theirs):
        each.generation_config = GenerationConfig(pad_token_id=0, decoder_start_token_id=0)  # MPT's has no cache
    settings = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    found = [GenerationMixin.generate(each, **inputs, **settings) for each in (ours, theirs)]
    assert torch.equal(found[0].sequences, found[1].sequences) and steps(ours) > 0
    for one, other in zip(found[0].logits, found[1].logits, strict=True):
        close(one, other)


@pytest.fixture
def started(dense):
    """A packed LLaMA behind a prompt and one native step, and the same without native steps."""
    inputs = prompts(dense["llama"], 2, 5, seed=0)
    found = []
    for options in ("format=bitmask", "format=bitmask,native=false"):
        model = packed(dense["llama"], options)
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model(**inputs, past_key_values=cache)
            model(torch.tensor([[3], [4]]), past_key_values=cache)
        found.append((model, cache))
    assert steps(found[0][0]) == 1
    return found


def logits(model, cache, **options):
    with torch.inference_mode():
        return model(torch.tensor([[7], [9]]), past_key_values=cache, **options).logits


CHANGES = {
    "nothing": lambda cache: None,
    "cropped": lambda cache: cache.crop(-3),
    "reordered": lambda cache: cache.reorder_cache(torch.tensor([1, 0])),
    "repeated": lambda cache: (cache.batch_repeat_interleave(2), cache.batch_select_indices(torch.tensor([0, 3]))),
    "written to": lambda cache: cache.layers[1].values.mul_(0.5),
    "one layer replaced": lambda cache: setattr(cache.layers[2], "keys", cache.layers[2].keys * 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_done_with_the_cache_is_seen(change, started):
    for turn in range(2):
        found = []
        for model, cache in started:
            with torch.inference_mode():
                CHANGES[change](cache)
            found.append(logits(model, cache))
        close(*found)
        assert steps(started[0][0]) == 2 + turn
        for ours, theirs in zip(started[0][1].layers, started[1][1].layers, strict=True):
            close(ours.keys, theirs.keys)
            close(ours.values, theirs.values)


@pytest.mark.parametrize("shape", [(2, 1, 6, 32), (2, 4, 6, 8), (2, 2, 6, 64)])
def test_a_cache_of_other_heads_is_not_written_to(shape, started):
    (model, cache), _ = started
    for layer in cache.layers:
        layer.keys, layer.values = torch.zeros(shape), torch.zeros(shape)
    assert tuple(layer.keys.shape) != (2, model.config.num_key_value_heads, 6, model.model.layers[0].self_attn.head_dim)
    with pytest.raises(RuntimeError):
        logits(model, cache)
    assert steps(model) == 1 and native.counts(model)["a cache of another shape"] == 1


def test_what_an_encoder_read_with_other_heads_is_refused(dense):
    model = packed(dense["t5"])
    inputs, cache = prompts(model, 2, 5, seed=0), transformers.EncoderDecoderCache(DynamicCache(), DynamicCache())
    token = torch.tensor([[3], [4]])
    with torch.inference_mode():
        encoded = model.get_encoder()(**inputs)
        given = {"encoder_outputs": encoded, "past_key_values": cache, "decoder_input_ids": token}
        for _ in range(2):
            model(**given)
        for layer in cache.cross_attention_cache.layers:
            layer.keys, layer.values = layer.keys[:, :1], layer.values[:, :1]
        with contextlib.suppress(RuntimeError):  # what transformers says of it is its own
            model(**given)
    assert steps(model) == 1 and native.counts(model)["a cache of another shape"] == 1


@pytest.mark.parametrize("other", ["dtype", "device"])
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_the_same_whatever_torch_makes_by_default(family, other, dense):
    model = packed(dense[family])
    inputs = prompts(model, 2, 5, seed=0)
    before, found = torch.get_default_dtype(), []
    with torch.inference_mode():
        for changed in (False, True):
            decoder = Decoder(model, inputs)
            decoder.first()
            token = torch.tensor([[3], [4]])
            try:
                torch.set_default_dtype(torch.bfloat16 if changed and other == "dtype" else before)
                with torch.device("meta" if changed and other == "device" else "cpu"):
                    found.append(decoder.next(token))
            finally:
                torch.set_default_dtype(before)
    assert torch.equal(*found) and steps(model) == 2


def test_what_was_handed_out_is_never_written_to(started):
    model, cache = started[0]
    kept = [(layer.keys, layer.values) for layer in cache.layers]
    before = [(keys.clone(), values.clone()) for keys, values in kept]
    again = copy.deepcopy(cache)
    first = logits(model, cache)
    cache.crop(-1)
    assert torch.equal(logits(model, cache), first)
    for layer, (keys, values) in zip(cache.layers, kept, strict=True):
        layer.keys, layer.values = keys, values
    assert torch.equal(logits(model, cache), first) and torch.equal(logits(model, again), first)
    for tensors, copies in zip(kept, before, strict=True):
        assert all(map(torch.equal, tensors, copies))


def test_memory_is_given_back_with_its_cache(started):
    model, cache = started[0]
    held = model.model.__dict__["forward"]._held
    assert len(held) == 1
    del cache
    started.clear()
    assert len(held) == 0


ONE = torch.ones(2, 1, dtype=torch.long)
REFUSED = {
    "several tokens": lambda model, cache: model(ONE.expand(2, 2), past_key_values=cache),
    "no cache": lambda model, cache: model(ONE, use_cache=False),
    "the argument output_hidden_states": lambda model, cache: model(
        ONE, past_key_values=cache, output_hidden_states=True
    ),
    "another kind of mask": lambda model, cache: model(
        ONE, past_key_values=cache, attention_mask=torch.ones(2, 1, 1, 7) > 0
    ),
    "another kind of cache": lambda model, cache: model(
        ONE, past_key_values=StaticCache(model.config, max_cache_len=9)
    ),
    "an empty cache": lambda model, cache: model(ONE, past_key_values=DynamicCache(config=model.config)),
    "positions beyond the cache": lambda model, cache: model(
        ONE, past_key_values=cache, position_ids=torch.full((2, 1), 900)
    ),
    "more than 16 rows": lambda model, cache: model(ONE[:1].expand(17, 1), past_key_values=repeated(cache, 17)),
}


@pytest.mark.parametrize("why", REFUSED)
def test_calls_that_are_not_native_say_why_and_answer(why, started):
    with torch.inference_mode():
        close(*(REFUSED[why](model, copy.deepcopy(cache)).logits for model, cache in started))
    ours, theirs = (native.counts(model) for model, _ in started)
    assert ours[why] == 1 + (why == "several tokens") and ours[NATIVE] == 1 and not theirs


def repeated(cache, rows):
    cache.batch_select_indices(torch.arange(rows) % 2)
    return cache


def test_hooks_are_called(started):
    model, cache = started[0]
    seen = []
    hook = model.model.layers[1].mlp.register_forward_hook(lambda *_: seen.append(1))
    first = logits(model, cache)
    assert seen == [1] and native.counts(model)["hooks"] == 1
    hook.remove()
    cache.crop(-1)
    close(logits(model, cache), first)
    assert seen == [1] and steps(model) == 2


def test_what_a_step_reads_is_counted_layer_by_layer(dense):
    inputs = prompts(dense["llama"], 1, 5, seed=0)
    ours, theirs = (packed(dense["llama"], f"format=bitmask,native={native}") for native in ("true", "false"))
    assert read_by_a_step(ours, inputs) == read_by_a_step(theirs, inputs)


def test_gradients_are_refused_as_before(started):
    model, _ = started[0]
    with torch.enable_grad(), pytest.raises(Exception, match="no gradient"):
        model(torch.tensor([[7], [9]]), past_key_values=DynamicCache(config=model.config))
    assert native.counts(model)["training, gradients or autocast"] == 1


@pytest.mark.parametrize("replaced", [".data", "_buffers"])
def test_packed_tensors_replaced_behind_a_module_are_seen_with_the_next_prompt(replaced, started):
    for model, cache in started:
        layer = model.model.layers[0].mlp.down_proj
        if replaced == ".data":
            layer.values.data = layer.values * 0.5
        else:
            layer._buffers["values"] = layer.values * 0.5
        with torch.inference_mode():
            model(torch.tensor([[5, 6], [7, 8]]), past_key_values=cache)
    close(*(logits(model, cache) for model, cache in started))
    assert steps(started[0][0]) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_freed_without_the_cycle_collector(family, dense):
    model = packed(dense[family])
    generate(model, prompts(model, 2, 5, seed=0), 3)
    assert steps(model) == 2
    gc.collect()
    gc.disable()
    try:
        held = [weakref.ref(each) for each in model.modules()]
        del model
        assert {each() for each in held} == {None}
    finally:
        gc.enable()


def test_a_forward_without_its_model_says_so(dense):
    forward = packed(dense["llama"]).model.forward
    with pytest.raises(ReferenceError, match="gone"):
        forward(ONE)


@pytest.mark.parametrize("moved", ["in place", "assigned", "norm", "module"])
def test_weights_may_change_between_steps(moved, started):
    for model, _ in started:
        mlp = model.model.layers[0].mlp
        layer = mlp.down_proj
        if moved == "in place":
            layer.values.mul_(0.5)
        elif moved == "assigned":
            layer.load_state_dict({**layer.state_dict(), "values": layer.values * 0.5}, assign=True)
        elif moved == "norm":
            model.model.norm.weight.data = model.model.norm.weight.data * 2
        else:
            mlp.down_proj = swap.weightless(PackedLinear.from_linear(nn.Linear(384, 128, bias=False), "slot"))
            mlp.down_proj.load_state_dict(started[0][0].model.layers[0].mlp.down_proj.state_dict())
    before = steps(started[0][0])
    close(*(logits(model, copy.deepcopy(cache)) for model, cache in started))
    assert steps(started[0][0]) == before + 1


def test_copies_step_with_their_own_weights(dense):
    model, inputs = packed(dense["llama"]), prompts(dense["llama"], 1, 5, seed=0)
    tokens = generate(model, inputs, 5).tokens
    before = follow(model, inputs, tokens)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert steps(made) == 0
        assert torch.equal(follow(made, inputs, tokens), before) and steps(made) == 4
        made.model.layers[0].mlp.down_proj.values.zero_()
        assert not torch.equal(follow(made, inputs, tokens), before)
        assert set(made.state_dict()) == set(model.state_dict())
    assert torch.equal(follow(model, inputs, tokens), before)


def test_models_step_at_once_in_threads(dense):
    model = packed(dense["llama"])
    given = [prompts(model, 1 + seed % 3, 4 + seed % 5, seed=seed) for seed in range(12)]
    expected = [generate(model, inputs, 8).tokens for inputs in given]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda inputs: generate(model, inputs, 8).tokens, given * 2))
    assert all(map(torch.equal, found, expected * 2))


def test_models_and_caches_take_turns(dense):
    families, inputs = ("llama", "mpt", "llama"), prompts(dense["llama"], 1, 5, seed=0)
    models = {family: packed(dense[family]) for family in set(families)}
    with torch.inference_mode():
        decoders = [Decoder(models[family], inputs) for family in families]
        tokens = [[decoder.first().argmax(-1, keepdim=True)] for decoder in decoders]
        for _ in range(5):
            for decoder, found in zip(decoders, tokens, strict=True):
                found.append(decoder.next(found[-1]).argmax(-1, keepdim=True))
    for family, found in zip(families, tokens, strict=True):
        assert torch.equal(torch.cat(found, 1), generate(dense[family], inputs, 6).tokens)


def test_it_is_exported_as_before(dense):
    class Logits(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(ids, use_cache=False).logits

    model, ids = packed(dense["llama"]), torch.arange(6)[None]
    assert inspect.signature(model.model.forward) == inspect.signature(dense["llama"].model.forward)
    with torch.no_grad():
        exported = torch.export.export(Logits(model), (ids,))
        assert "packed_linear" in str(exported.graph)
        close(exported.module()(ids), model(ids, use_cache=False).logits)
