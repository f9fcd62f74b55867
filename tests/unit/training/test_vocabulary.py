"""Vocabularies for backbones from scratch."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from model.bundle.backbone import check_tokenizer
from model.network.config import BackboneConfig
from model.prompts.templates import TEMPLATES
from model.prompts.tokenizer import TextTokenizer
from model.training.vocabulary import make_tokenizer
from tests.unit.training.tiny_data import tiny_dataset

TOKENIZER: Tokenizer = make_tokenizer([tiny_dataset()], num_words=20)


def test_it_is_a_tokenizer_that_a_bundle_takes() -> None:
    size = TOKENIZER.get_vocab_size()
    config = BackboneConfig(size, d_model=8, d_kv=4, d_ff=8, num_heads=2, num_layers=1, num_decoder_layers=1)
    check_tokenizer(TextTokenizer(TOKENIZER), config, "tokenizer.json")


@pytest.mark.parametrize(
    ("number", "pieces"),
    [
        ("5", ["▁5"]),
        ("57", ["▁57"]),
        ("957", ["▁957"]),
        ("7391", ["▁73", "91"]),
        ("11924", ["▁119", "24"]),
        ("12 3 45", ["▁12", "▁3", "▁45"]),
        ("7300", ["▁73", "00"]),
    ],
)
def test_numbers_are_cut_before_their_last_two_digits(number: str, pieces: list[str]) -> None:
    assert TOKENIZER.encode(number, add_special_tokens=False).tokens == pieces


def test_every_number_up_to_a_hundred_thousand_comes_back_as_it_was() -> None:
    text = TextTokenizer(TOKENIZER)
    for number in range(1, 100_000, 7):
        assert text.decode(text.words(str(number))) == str(number)


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_template_has_an_unknown_token(template: str) -> None:
    text = TextTokenizer(TOKENIZER)
    assert text.unk_id not in text.words(TEMPLATES[template].text.replace("{", "").replace("}", ""))


def test_frequent_words_are_one_token_and_others_are_written_out() -> None:
    assert TOKENIZER.encode("toy number", add_special_tokens=False).tokens == ["▁toy", "▁number"]
    written_out = TOKENIZER.encode("zebra", add_special_tokens=False).tokens
    assert "".join(written_out) == "▁zebra"
    assert len(written_out) > 1
