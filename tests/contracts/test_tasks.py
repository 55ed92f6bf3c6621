"""What every task promises; a new file in `harness/tasks` is checked here by itself."""

from __future__ import annotations

import inspect
import json
import re

import numpy
import pytest
import torch

from harness import rooms

ROOM = rooms.ROOMS["task"]
TEXTS = [
    "Ada keeps eleven apples.",
    "Der Zug fährt um neun.",
    "Nora reads four pages and sleeps.",
    "Half past ten",
]
CLIPS = [0.1 * numpy.random.default_rng(seed).standard_normal(8000 * (seed + 1)).astype("float32") for seed in range(4)]
PICTURES = [numpy.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype="uint8") for seed in range(4)]
ROWS = {
    "translation": [{"source": text, "target": text[::-1]} for text in TEXTS],
    "pair": [{"source": text, "target": text[::-1]} for text in TEXTS],
    "speech": [{"audio": audio, "text": text} for audio, text in zip(CLIPS, TEXTS, strict=True)],
    "text": [{"text": text * 3} for text in TEXTS],
    "reasoning": [{"question": text, "answer": f"so\n#### {len(text)}"} for text in TEXTS],
    "instruction": [{"instruction": text, "response": text[::-1]} for text in TEXTS],
    "image": [{"image": image, "label": at, "classes": TEXTS} for at, image in enumerate(PICTURES)],
}
FAMILY = {"translation": "t5", "speech": "whisper", "text": "llama", "reasoning": "mpt", "image": "vit"}
FAMILY |= {"instruction": "llama", "pair": "t5"}
QUICK = {"max_new_tokens": 4, "window": 16, "length": 16, "beams": 1}
"""Smaller values for options of these names, to be quick."""

training = [name for name in ROOM.names() if ROOM.method(name).constants.get("READS")]


def quick(function):
    names = inspect.signature(function).parameters
    return {name: value for name, value in QUICK.items() if name in names}


@pytest.fixture(scope="module")
def models_and_texts():
    return {kind: rooms.load("model", family).tiny(TEXTS * 3, seed=0) for kind, family in FAMILY.items()}


@pytest.fixture(params=training)
def task(request, models_and_texts):
    module = rooms.load("task", request.param)
    return module, *models_and_texts[module.READS], ROWS[module.READS]


@pytest.mark.parametrize("name", ROOM.names())
def test_it_says_what_it_reads_and_how_it_is_scored(name):
    method = ROOM.method(name)
    assert method.constants["READS"] in {*ROWS, None}
    assert method.constants["METRIC"] in rooms.ROOMS["metric"].names()
    assert method.summary.endswith(".") and len(method.summary) > 20


@pytest.mark.parametrize("name", ROOM.names())
def test_predict_is_given_its_rows_by_place_and_has_a_default_for_every_option(name):
    method = ROOM.method(name)
    assert method.needs[:5] == ("model", "processor", "rows", "start", "batch_size")
    assert set(method.needs[5:]) <= {"shown", "limit"}
    assert all(option.default != rooms.REQUIRED and option.annotation for option in method.options.values())
    assert rooms.resolve("task", str(rooms.resolve("task", name))) == rooms.resolve("task", name)


@pytest.mark.parametrize("name", ROOM.names())
def test_every_option_is_explained(name):
    module = rooms.load("task", name)
    for verb in ("examples", "predict"):
        function = getattr(module, verb, None)
        for option in inspect.signature(function).parameters if function else ():
            assert re.search(rf"^\s+{option}: ", function.__doc__, re.MULTILINE), f"{name}.{verb}: {option}"


def test_examples_make_batches_that_the_model_learns_from(task):
    module, model, processor, rows = task
    examples = module.examples(rows, processor, **quick(module.examples))
    batch = module.collate([examples[i] for i in range(min(3, len(examples)))], processor=processor)
    assert all(isinstance(tensor, torch.Tensor) for tensor in batch.values())
    assert all((labels != -100).any() for labels in batch["labels"])
    loss = model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss) and any(p.grad is not None and p.grad.any() for p in model.parameters())
    model.zero_grad()


def test_examples_are_the_same_when_asked_again(task):
    module, _, processor, rows = task
    first, again = (module.examples(rows, processor, **quick(module.examples)) for _ in range(2))
    one, two = (module.collate([e[0], e[len(e) - 1]], processor) for e in (first, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_texts_are_the_strings_of_a_row(task):
    module, *_, rows = task
    strings = " ".join(module.texts(rows[0]))
    assert all(value in strings for value in rows[0].values() if isinstance(value, str))


@pytest.mark.parametrize("size", [1, 3])
def test_predictions_are_json_in_order_and_resume_by_sample(task, size):
    module, model, processor, rows = task
    extra = {"shown": ()} if "shown" in inspect.signature(module.predict).parameters else {}

    def predict(start):
        return module.predict(model, processor, rows, start, size, **extra, **quick(module.predict))

    lines = [json.dumps(row) for row in predict(0)]
    assert len(lines) == predict(0).total
    for start in range(1, len(lines) + 1):
        assert [json.dumps(row) for row in predict(start)] == lines[start:]
    scores = rooms.bind("metric", module.METRIC)(json.loads(line) for line in lines)
    assert scores[module.METRIC].count == len(lines)


def test_predicting_keeps_no_gradients_and_leaves_the_model_as_it_was(task):
    module, model, processor, rows = task
    extra = {"shown": ()} if "shown" in inspect.signature(module.predict).parameters else {}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(module.predict(model, processor, rows, 0, 2, **extra, **quick(module.predict)))
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
