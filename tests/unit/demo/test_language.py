from __future__ import annotations

import pytest

from demo.language import make_tokenizer
from model.prompts.templates import TEMPLATES
from model.prompts.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(make_tokenizer([*(template.text for template in TEMPLATES.values()), "belora belora duo"]))


def test_the_tokenizer_keeps_to_t5_conventions(tokenizer: TextTokenizer) -> None:
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert tokenizer.image_id == tokenizer.vocab_size - 1
    text = "Here is the purchase history list of user_7 so that it tells what comes next"
    assert tokenizer.unk_id not in tokenizer.words(text)
    assert tokenizer.decode(tokenizer.words(text)) == text


def test_numbers_below_a_thousand_are_one_token(tokenizer: TextTokenizer) -> None:
    identifiers = tokenizer.identifiers([str(number) for number in range(1, 1000)])
    assert {len(ids) for ids in identifiers} == {1}
    assert len({ids[0] for ids in identifiers}) == 999


def test_a_name_may_begin_another(tokenizer: TextTokenizer) -> None:
    short, long = tokenizer.identifiers(["belora", "belora duo"])
    assert len(short) == 1
    assert long[: len(short)] == short


def test_unknown_words_are_spelled_out(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.words("xylograph")
    assert len(ids) > 1
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == "xylograph"
