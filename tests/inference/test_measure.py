"""Engines measured side by side: the order of the rounds, the figures from the times, what is refused."""

from __future__ import annotations

import pytest
import torch

from harness import rooms
from harness.inference import formats
from harness.inference import measure as module
from harness.inference.command import sparser
from harness.inference.greedy import Run
from harness.inference.kernels.linear import PackedLinear
from harness.inference.measure import DENSE, Setting, measure, race, spread, threads, times
from harness.inference.report import loaded, table
from harness.problems import Problem


def report(model, engines, setting, **more):
    steps = measure(model, engines, setting, **more)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            return ended.value


@pytest.fixture(scope="module")
def said(tiny_models):
    model, _ = tiny_models.tiny("t5")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = report(model, ["torch_csr", "torch_int8"], Setting(2, 6, 4, repeats=2, threads=1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return found


def test_every_engine_is_reported_beside_the_baseline(said):
    assert list(said["engines"]) == [DENSE, "torch_csr", "torch_int8:head=keep"]
    assert said["against"] == DENSE and said["machine"]["threads"] == 1
    for name, engine in said["engines"].items():
        assert len(engine["step_seconds"]["values"]) == 2
        assert engine["agreement"]["greedy_equal"] or name.startswith("torch_int8")
    assert said["theoretical_flop_ratio"] == pytest.approx(1, abs=1e-3)


def test_the_share_of_the_bound_is_reading_over_the_step(said):
    own = said["engines"]["torch_csr"]
    read = sum(own["bytes_read_by_a_step"].values())
    bound = read / said["machine"]["bandwidth"]
    assert own["share_of_bound"] == pytest.approx(bound / own["step_seconds"]["median"])
    assert own["bound_tokens_per_second"] == pytest.approx(2 / bound)


def test_the_table_says_what_a_reader_must_know(said):
    text = table(said)
    for part in (
        "Batch 2, prompt of 6 tokens, 4 generated",
        "Theoretical only",
        "GB/s",
        "encoder's share",
        "Load average",
    ):
        assert part in text
    rows = [line for line in text.splitlines() if line.startswith("| torch")]
    assert len(rows) == 3 and len({row.count("|") for row in rows}) == 1
    assert "window" not in text


def test_each_round_begins_with_another_engine(monkeypatch):
    monkeypatch.setattr(module, "generate", lambda model, inputs, tokens: model)
    order = [name for name, _ in race(dict.fromkeys("abc"), {}, Setting(), rounds=4)]
    assert "".join(order) == "abcbcacababc"


def test_figures_follow_from_the_times(tiny_models):
    model, _ = tiny_models.tiny("llama")
    tokens = torch.zeros(2, 5)
    dense = [Run(tokens, 0.0, 1.0, 4.0), Run(tokens, 0.0, 2.0, 8.0), Run(tokens, 0.0, 1.0, 4.0)]
    own = [Run(tokens, 0.0, 0.5, 1.0), Run(tokens, 0.0, 0.5, 4.0), Run(tokens, 0.0, 0.5, 2.0)]
    found = times(own, dense, Setting(batch=2, prompt=10), model)
    assert found["speedup"]["values"] == [4, 2, 2] and found["speedup"]["median"] == 2
    assert found["step_seconds"]["median"] == 0.5 and found["tokens_per_second"]["median"] == 4
    assert found["first_token_speedup"]["values"] == [2, 4, 2]
    assert found["total_speedup"]["values"] == [5 / 1.5, 10 / 4.5, 2]
    assert found["prefill_tokens_per_second"]["median"] == 40
    assert "encoder_share" not in found and "share_of_window" not in found


def test_a_model_that_hears_is_measured_against_its_window(tiny_models):
    model, _ = tiny_models.tiny("whisper")
    runs = [Run(torch.zeros(2, 5), 1.0, 1.5, 4.5)]
    found = times(runs, runs, Setting(batch=2), model)
    assert found["share_of_window"]["median"] == 6 / (2 * 6)
    assert found["encoder_share"]["median"] == 1 / 6
    assert "prefill_tokens_per_second" not in found


INT8 = "packed:format=dense,precision=int8"


@pytest.fixture(scope="module")
def packed(tiny_models):
    model = sparser(tiny_models.tiny("llama")[0], 0.75)
    return report(
        model, ["packed:precision=int8"], Setting(1, 6, 4, repeats=3, threads=1), against="packed:format=dense"
    )


def test_a_packed_engine_is_raced_against_torch_and_its_own_dense_weights(packed):
    against, plain, own, engine = packed["engines"]
    assert packed["against"] == against and against.startswith("packed:format=dense,precision=fp32")
    assert packed["torch"] == plain == DENSE
    assert own.startswith(INT8) and engine == own.replace("format=dense", "format=auto")
    steps = {name: said["step_seconds"]["values"] for name, said in packed["engines"].items()}
    for key, other in (("speedup", against), ("speedup_torch", plain), ("speedup_own", own)):
        expected = [a / b for a, b in zip(steps[other], steps[engine], strict=True)]
        assert packed["engines"][engine][key]["values"] == pytest.approx(expected)


def test_the_table_has_a_column_for_each_baseline_and_names_the_formats(packed, tiny_models):
    text, layers = table(packed), tiny_models.tiny("llama")[0].config.num_hidden_layers
    assert "| speed-up | over torch dense | over own dense |" in text
    engine = packed["engines"][packed["torch"]]
    assert "speedup_own" not in engine and "formats" not in engine
    for name, said in packed["engines"].items():
        if name != packed["torch"]:
            assert sum(said["formats"].values()) == 4 * layers  # q k v and gate up are one each
            assert f"{name}: " + ", ".join(f"{n} matrices {form}" for form, n in said["formats"].items()) in text
    rows = [line for line in text.splitlines() if line.startswith(("| torch", "| packed", "| engine"))]
    assert len(rows) == 5 and len({row.count("|") for row in rows}) == 1


def test_a_row_says_when_all_that_a_step_reads_fits_in_the_cache(tiny_models, monkeypatch):
    for size, expected in ((2**40, True), (0, False)):
        monkeypatch.setattr(module.roofline, "cache_bytes", lambda size=size: size)
        monkeypatch.setattr(module.roofline, "bandwidth", lambda: 1e10)
        said = report(tiny_models.tiny("llama")[0], [DENSE], Setting(1, 4, 3, repeats=1))
        assert said["engines"][DENSE]["fits_cache"] is expected and ("%, in cache |" in table(said)) is expected


def test_weights_that_are_packed_wrongly_are_refused(tiny_models, monkeypatch):
    pack = formats.pack
    monkeypatch.setattr(formats, "pack", lambda weight, *how, **more: pack(-weight, *how, **more))
    with pytest.raises(Problem, match="a weight is off by more than half a step") as caught:
        report(tiny_models.tiny("llama")[0], ["packed:precision=int8"], Setting(1, 4, 3, repeats=1))
    assert caught.value.where.startswith(INT8) and caught.value.where.endswith("layers.0.self_attn.q_proj")


def test_products_that_are_not_those_of_the_packed_weights_are_refused(tiny_models, monkeypatch):
    wrong = PackedLinear.forward

    def off(self, x):
        return wrong(self, x) * 1.1

    monkeypatch.setattr(PackedLinear, "forward", off)
    for precision in ("bf16", "int8"):
        with pytest.raises(Problem, match="computes other logits than its weights"):
            report(
                tiny_models.tiny("llama")[0],
                [f"packed:native=false,precision={precision}"],
                Setting(1, 4, 3, repeats=1),
            )


def failing(monkeypatch, **broken):
    monkeypatch.setattr(module, "is_peer", lambda engine: engine == "torch_csr")
    for name, value in broken.items():
        where = rooms.load("engine", "torch_csr") if name == "available" else module.alone
        monkeypatch.setattr(where, name, value)


def raising(*given):
    raise RuntimeError("no such operator\nand a trace")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"available": lambda: "not installed: onnx"}, "not installed: onnx"),
        ({"measure": raising}, "RuntimeError: no such operator"),
    ],
)
def test_a_peer_that_fails_says_why_in_its_row(tiny_models, monkeypatch, broken, why):
    failing(monkeypatch, **broken)
    said = report(tiny_models.tiny("llama")[0], ["torch_csr", "torch_int8"], Setting(1, 4, 3, repeats=1))
    assert said["engines"]["torch_csr"] == {"alone": True, "failed": why}
    assert said["engines"]["torch_int8:head=keep"]["speedup"]["median"] > 0
    text = table(said)
    assert "| torch_csr | failed |" in text and f"torch_csr failed: {why}." in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("| ")}) == 1


def test_a_peer_that_fails_is_no_baseline(tiny_models, monkeypatch):
    failing(monkeypatch, available=lambda: "not installed: onnx")
    with pytest.raises(Problem, match="what speed-ups are over cannot run: not installed: onnx"):
        report(tiny_models.tiny("llama")[0], ["torch_int8"], Setting(1, 4, 3, repeats=1), against="torch_csr")


def test_rounds_that_were_not_shared_are_compared_by_their_median():
    runs = {name: [Run(torch.zeros(1, 2), 0.0, 1.0, value) for value in (1.0, 5.0, 2.0)] for name in "ab"}
    assert module.of_the_rounds(runs, {"a": 0, "b": 0}, "a", "b") is runs["b"]
    assert [run.rest for run in module.of_the_rounds(runs, {"b": 0}, "a", "b")] == [2.0] * 3


def test_spread_has_the_quartiles_and_the_standard_error():
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found["median"], found["q25"], found["q75"]) == (3, 2, 4)
    assert found["stderr"] == pytest.approx(0.93 * 2 / 5**0.5)
    alone = spread([7.0])
    assert (alone["median"], alone["q25"], alone["q75"], alone["stderr"]) == (7, 7, 7, None)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1) as count:
        assert torch.get_num_threads() == count == before + 1
    with threads(None) as count:
        assert count == before
    assert torch.get_num_threads() == before


def test_one_place_is_found_for_all_engines(monkeypatch):
    assert module.device_of([DENSE, "torch_csr"]) == "cpu"
    monkeypatch.setattr(rooms.load("engine", "torch_24"), "available", lambda: None)
    assert module.device_of([DENSE, "torch_24"]) == "cuda"
    with pytest.raises(Problem, match="torch_csr runs on the CPU and torch_24 on the GPU"):
        module.device_of([DENSE, "torch_csr", "torch_24"])


def test_an_engine_that_is_not_what_it_says_is_not_reported(tiny_models, monkeypatch):
    monkeypatch.setattr(rooms.load("engine", "torch_int8"), "exact", lambda: True)
    with pytest.raises(Problem, match="computes other logits than its weights"):
        report(tiny_models.tiny("mpt")[0], ["torch_int8"], Setting(1, 4, 3, repeats=1))


def test_the_baseline_is_that_of_the_engines_where_none_is_given(tiny_models, monkeypatch):
    monkeypatch.setattr(module, "device_of", lambda names: pytest.fail(" ".join(names)))
    with pytest.raises(pytest.fail.Exception, match=r"^torch_dense:dtype=float32 packed:format=dense,.* packed:format"):
        report(tiny_models.tiny("llama")[0], ["packed"], Setting())
    for engine, expected in (("torch_24", "bfloat16"), ("torch_csr", "float32")):
        with pytest.raises(pytest.fail.Exception, match=f"torch_dense:dtype={expected} {engine}"):
            report(tiny_models.tiny("llama")[0], [engine], Setting())
    with pytest.raises(pytest.fail.Exception, match="torch_dense:dtype=float32 torch_24"):
        report(tiny_models.tiny("llama")[0], ["torch_24"], Setting(), against="torch_dense")


def test_a_float32_baseline_on_a_gpu_is_remarked_on(said):
    gpu = said["machine"] | {"gpu": "a GPU"}
    assert "The baseline computes in float32" in table(said | {"machine": gpu})
    assert "The baseline computes in float32" not in table(said)


def test_packed_weights_that_mostly_decode_by_python_are_remarked_on(said):
    packed = {"calls": {"native": 3, "several tokens": 1}, "not_native": None}
    slow = {"calls": {"native": 1, "hooks": 5, "several tokens": 1}, "not_native": None}
    for engine, why in ((packed, None), (slow, "hooks"), ({"not_native": "a sliding window"}, "a sliding window")):
        name, first = next(iter(said["engines"].items()))
        text = table(said | {"engines": {name: first | engine}})
        assert ("decodes layer by layer" in text) is (why is not None) and (why or "") in text


def test_an_engine_that_cannot_hold_the_weights_is_named(tiny_models):
    with pytest.raises(Problem, match=r"not at most 2") as caught:
        report(tiny_models.tiny("llama")[0], ["packed:format=2:4"], Setting(1, 4, 3, repeats=1))
    engine, layers = caught.value.where.split(": ")
    assert engine.startswith("packed:format=2:4,") and layers.startswith("model.layers.0.self_attn.q_proj, ")
    assert caught.value.hint


def test_an_engine_whose_logits_are_not_finite_is_named(tiny_models, monkeypatch):
    def overflow(model):
        model.lm_head.weight = torch.nn.Parameter(torch.full_like(model.lm_head.weight, torch.nan))
        return model

    monkeypatch.setattr(rooms.load("engine", "torch_csr"), "prepare", overflow)
    with pytest.raises(Problem, match="the engine computes logits that are not finite") as caught:
        report(tiny_models.tiny("llama")[0], ["torch_csr"], Setting(1, 4, 3, repeats=1))
    assert caught.value.where == "torch_csr"


def test_forms_are_shown_in_mebibytes():
    text = loaded(
        [{"format": "slot", "precision": "int8", "bytes_on_disk": 2**20, "bytes_in_memory": 2**21, "load_seconds": 0.5}]
    )
    assert "| slot int8 | 1.0 | 2.0 | 0.50 |" in text


def test_more_tokens_than_the_model_reads_are_refused(tiny_models):
    model, _ = tiny_models.tiny("llama")
    most = model.config.max_position_embeddings
    with pytest.raises(Problem, match=f"{most + 1} tokens are asked for, and the model's decoder reads up to {most}"):
        report(model, [DENSE], Setting(1, most - 3, 4, repeats=1))


@pytest.mark.parametrize("batch", [10**12, 10**30])
def test_logits_that_no_machine_holds_are_refused(tiny_models, batch):
    with pytest.raises(Problem, match=f"batch {batch} has .* GB of logits, and this machine"):
        report(tiny_models.tiny("llama")[0], [DENSE], Setting(batch, 4, 3, repeats=1))


def test_an_empty_baseline_is_no_default(tiny_models):
    with pytest.raises(Problem, match="unknown engine ''"):
        report(tiny_models.tiny("llama")[0], ["torch_csr"], Setting(), against="")


def test_more_threads_than_cores_are_refused():
    with pytest.raises(Problem, match="100000 threads are asked for"), threads(100_000):
        pass
