from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.models._tokenizer import SIZE, train

TEXTS = ["the cat sat on the mat", "der Hund schläft"] * 3


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text_comes_back(text):
    tokenizer = train(TEXTS, ("<pad>", "<unk>"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_special_tokens_come_first_and_equal_texts_give_equal_tokenizers():
    one, other = train(TEXTS, ("<pad>", "</s>")), train(iter(TEXTS), ("<pad>", "</s>"))
    assert one.to_str() == other.to_str()
    assert [one.id_to_token(i) for i in range(2)] == ["<pad>", "</s>"] and one.get_vocab_size() <= SIZE
