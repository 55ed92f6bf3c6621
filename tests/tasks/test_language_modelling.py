"""Language modelling: windows by hand, a uniform model, and lm-eval's own task wikitext on the same documents."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.data._rows import Rows
from harness.metrics import perplexity
from harness.problems import Problem
from harness.tasks import language_modelling as lm


@pytest.fixture
def rows(texts):
    return [{"text": text} for text in texts[:20]]


PAGES = [
    ' \n = Old house = \n \n The old house \'s tree @-@ top , it is said , runs ( north ) to " nine " . \n',
    " \n = Cat = \n \n The cat sleeps under 1 @,@ 200 trees ; seven run . \n \n = = Dog = = \n \n A dog . \n",
    " \n = Tree = \n \n " + "the young tree is on the house ; " * 12 + "\n",
]


def test_windows_are_the_joined_text_without_its_tail(llama, rows):
    tokenizer = llama[1]
    examples = lm.examples(rows, tokenizer, length=17)
    ids = tokenizer("\n\n".join(row["text"] for row in rows)).input_ids
    assert len(examples) == len(ids) // 17 and len(ids) % 17
    assert [i for example in examples for i in example["input_ids"]] == ids[: 17 * len(examples)]
    assert ids.count(tokenizer.bos_token_id) == 1
    batch = lm.collate([examples[i] for i in range(3)], tokenizer)
    assert torch.equal(batch["labels"], batch["input_ids"]) and batch["attention_mask"].all()


def test_rows_of_ids_are_examples_as_they_stand(llama):
    ids = [[7, 5, 9], [len(llama[1]) - 1], [4] * 11]
    examples = lm.examples([{"input_ids": each} for each in ids], llama[1], length=2)
    assert [example["input_ids"] for example in examples] == ids
    batch = lm.collate([examples[0], examples[2]], llama[1])
    assert batch["attention_mask"].sum(1).tolist() == [3, 11]


def test_ids_that_are_not_the_tokenizers_are_a_problem(llama):
    tokenizer = llama[1]
    rows = [{"input_ids": [3]}, {"input_ids": [len(tokenizer)]}, {"input_ids": [3] * 1025}]
    examples = lm.examples(rows, tokenizer)
    assert examples[0] == {"input_ids": [3]}
    with pytest.raises(Problem, match=f"row 1: token {len(tokenizer)} is none of the tokenizer's"):
        examples[1]
    with pytest.raises(Problem, match="row 2: it has 1025 tokens; the model reads up to 1024"):
        examples[2]


def test_ids_are_no_text(llama):
    rows = [{"input_ids": [3, 4]}]
    for cut in ("crops", "packed"):
        with pytest.raises(Problem, match=rf"used as they are\n.*leave cut={cut} out"):
            lm.examples(rows, llama[1], cut=cut)
    with pytest.raises(Problem, match="text is needed here"):
        lm.texts(rows[0])
    for protocol in ("ppl-concat", "word-ppl"):
        with pytest.raises(Problem, match="text is needed here"):
            list(lm.predict(*llama, rows, 0, 1, protocol=protocol, window=8))


class Counting:
    """A tokenizer that notes what it is shown."""

    def __init__(self, tokenizer):
        self.tokenizer, self.seen = tokenizer, []

    def __call__(self, text, **options):
        self.seen.append(text)
        return self.tokenizer(text, **options)


def test_crops_are_one_window_of_each_long_document(llama, texts):
    tokenizer, rows = llama[1], [{"text": text} for text in texts]
    lengths = [len(tokenizer(text).input_ids) for text in texts]
    length = sorted(lengths)[30]
    long = [i for i, each in enumerate(lengths) if each > length]
    assert 0 < len(long) < 31, "the texts no longer try both sides"
    crops = lm.examples(rows, tokenizer, length=length, cut="crops")
    assert len(crops) == len(long)
    for crop, index in zip(crops, long, strict=True):
        ids, window = tokenizer(texts[index]).input_ids, crop["input_ids"]
        places = range(len(ids) - length)  # as in the papers' code, which never takes the last place
        assert len(window) == length and any(ids[at : at + length] == window for at in places)


def test_a_draw_of_crops_tokenises_no_more_than_it_needs(llama, texts):
    rows = [{"text": text} for text in texts * 50]
    counting = Counting(llama[1])
    drawn = lm.examples(rows, counting, length=10, cut="crops").draw(5, seed=0)
    assert len(drawn) == 5 and 5 <= len(counting.seen) < 200


def test_a_draw_follows_its_seed_and_a_window_its_document(llama, texts):
    rows = [{"text": text} for text in texts]

    def draw(drawn, **options):
        crops = lm.examples(rows, llama[1], length=8, cut="crops", **options)
        return [tuple(crop["input_ids"]) for crop in crops.draw(20, drawn)]

    assert draw(0) == draw(0) != draw(1)
    every = {tuple(crop["input_ids"]) for crop in lm.examples(rows, llama[1], length=8, cut="crops")}
    assert {*draw(0), *draw(1)} <= every and not {*draw(0, seed=1)} <= every


def test_too_few_long_documents_are_counted(llama, rows):
    with pytest.raises(Problem, match="3 windows are asked for, and 0 of 20 documents have more than 900 tokens"):
        lm.examples(rows, llama[1], length=900, cut="crops").draw(3, seed=0)


def test_a_text_shorter_than_a_window_is_a_problem(llama, rows):
    with pytest.raises(Problem, match="fewer than one window of 4096"):
        lm.examples(rows[:2], llama[1], length=4096)


def test_text_that_memory_cannot_join_is_refused_before_it_is_read(llama, rows, monkeypatch):
    memory = lm.JOINED * sum(len(row["text"]) for row in rows[:5])
    monkeypatch.setattr(lm.psutil, "virtual_memory", lambda: SimpleNamespace(total=memory))
    assert len(lm.examples(rows[:5], llama[1], length=4))
    read = []
    spied = Rows(range(20), lambda index: read.append(index) or rows[index])
    with pytest.raises(Problem, match=r"the first 6 of these documents joined need (.|\n)* cut=packed"):
        lm.examples(spied, llama[1], length=4)
    assert max(read) == 5


def test_a_window_longer_than_the_context_is_a_problem(llama, mpt, rows):
    for model, tokenizer in (llama, mpt):
        with pytest.raises(Problem, match="a window of 2048 tokens is longer than the model's context of 1024"):
            lm.predict(model, tokenizer, rows, 0, 2)


@pytest.mark.parametrize("protocol", ["ppl-concat", "word-ppl"])
def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(llama, rows, protocol):
    model, tokenizer = llama

    class Uniform(torch.nn.Module):
        config, device = model.config, model.device

        def forward(self, input_ids, **_):
            return type("Out", (), {"logits": torch.zeros(*input_ids.shape, len(tokenizer))})

    found = perplexity.score(lm.predict(Uniform(), tokenizer, rows, 0, 4, protocol=protocol, window=16))
    assert found["perplexity" if protocol == "ppl-concat" else "token_perplexity"].value == pytest.approx(
        len(tokenizer)
    )


def test_concat_is_the_exponential_of_the_models_mean_loss(llama, rows):
    model, tokenizer = llama
    predicted = list(lm.predict(model, tokenizer, rows, 0, 3, window=32))
    windows = lm.examples(rows, tokenizer, length=32)
    with torch.no_grad():
        losses = [model(**lm.collate([window], tokenizer)).loss.item() for window in windows]
    assert [row["tokens"] for row in predicted] == [31] * len(windows)
    found = perplexity.score(predicted)["perplexity"]
    assert found.value == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert found.protocol == "ppl-32-concat" and found.count == len(windows)


@pytest.mark.parametrize("protocol", ["ppl-concat", "word-ppl"])
def test_the_batch_size_changes_no_more_than_roundings(mpt, rows, protocol):
    one, many = (list(lm.predict(*mpt, rows, 0, size, protocol=protocol, window=12)) for size in (1, 7))
    assert [r["nll"] for r in one] == pytest.approx([r["nll"] for r in many], rel=1e-5)
    assert [r["tokens"] for r in one] == [r["tokens"] for r in many]


def test_rolling_windows_by_hand(llama):
    tokenizer = llama[1]
    (begin, *ids) = tokenizer("the old cat sleeps under the young tree").input_ids
    ids = [begin, *ids]  # lm-eval keeps the tokenizer's own first token and puts another before it
    pairs = list(lm._rolling("the old cat sleeps under the young tree", tokenizer, 4))
    assert [token for _, scored in pairs for token in scored] == ids
    assert pairs[0] == ([begin, *ids[:3]], ids[:4])
    assert pairs[1] == (ids[3:7], ids[4:8])
    rest = len(ids) - len(ids) % 4
    assert pairs[-1] == (ids[-5:-1], ids[rest:])


@pytest.mark.parametrize("family", ["llama", "mpt"])
def test_word_perplexity_is_lm_evals_wikitext(family, request, tmp_path, quick_lm_eval):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = request.getfixturevalue(family)
    (tmp_path / "pages.py").write_text(
        "import datasets\n"
        f"PAGES = {json.dumps(PAGES)}\n"
        "def load(**_): return {'test': datasets.Dataset.from_list([{'page': page} for page in PAGES])}\n"
    )
    theirs = Path(lm_eval.__file__).parent / "tasks" / "wikitext" / "wikitext.yaml"
    lines = [f"include: {theirs}", "task: pages", "custom_dataset: !function pages.load"]
    lines += ["training_split: null", "validation_split: null"]
    (tmp_path / "pages.yaml").write_text("\n".join(lines))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, max_length=24, batch_size=2)
    expected = lm_eval.simple_evaluate(harness, tasks=["pages"], task_manager=manager, bootstrap_iters=0)["results"][
        "pages"
    ]

    rows = [{"text": page} for page in PAGES]
    found = perplexity.score(lm.predict(model, tokenizer, rows, 0, 2, protocol="word-ppl-wikitext", window=24))
    assert found["perplexity"].value == pytest.approx(expected["word_perplexity,none"], rel=1e-5)
    assert found["byte_perplexity"].value == pytest.approx(expected["byte_perplexity,none"], rel=1e-6)
    assert found["bits_per_byte"].value == pytest.approx(expected["bits_per_byte,none"], rel=1e-6)
    assert found["perplexity"].protocol == "word-ppl-wikitext-24"


def test_lines_are_no_articles(llama):
    with pytest.raises(Problem, match="reads whole articles"):
        list(lm.predict(*llama, [{"text": " = Cat = \n"}], 0, 1, protocol="word-ppl-wikitext", window=8))


def test_an_empty_document_costs_nothing(llama):
    (row,) = lm.predict(llama[0], _without_bos(llama[1]), [{"text": ""}], 0, 1, protocol="word-ppl", window=8)
    assert row == {"protocol": "word-ppl-8", "nll": 0, "tokens": 0, "words": 1, "bytes": 0}


def _without_bos(tokenizer):
    import copy

    plain = copy.deepcopy(tokenizer)
    plain.backend_tokenizer.post_processor = None
    return plain


@pytest.mark.mirror
@pytest.mark.skipif(not os.environ.get("HARNESS_MIRROR"), reason="needs HARNESS_MIRROR")
def test_stories_are_no_surprise_to_the_model_that_knows_them():
    from harness import models, rooms
    from harness.sources import model_source

    source = model_source("karpathy/stories260K")
    model, tokenizer = models.load(source), models.load_processor(source)
    stories, pages = (
        rooms.bind("data", name)(split) for name, split in (("tinystories", "train"), ("wikitext2", "test"))
    )
    known, foreign = (
        perplexity.score(lm.predict(model, tokenizer, [rows[i] for i in range(20)], 0, 4, window=512))["perplexity"]
        for rows in (stories, pages)
    )
    assert known.value < 10 < 50 < foreign.value
