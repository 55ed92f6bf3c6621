from __future__ import annotations

import pytest

from harness.data import gsm8k


def test_rows_hold_question_and_answer_alone(put):
    put("openai/gsm8k", {"main": {"test": [{"question": "3 + 4?", "answer": "<<3+4=7>>7\n#### 7", "id": 1}]}})
    assert gsm8k.rows("test")[0] == {"question": "3 + 4?", "answer": "<<3+4=7>>7\n#### 7"}


@pytest.mark.mirror
def test_real_problems(real_mirror):
    test = gsm8k.rows("test")
    assert len(test) == 1319 and len(gsm8k.rows("train")) == 7473
    assert test[0]["question"].startswith("Janet’s ducks") and test[0]["answer"].endswith("#### 18")
