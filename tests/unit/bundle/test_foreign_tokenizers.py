"""A tokenizer that reads texts otherwise than T5's is refused with the rule that it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from model.bundle.importers.vocabulary import check_size, read_tokenizer
from model.training.vocabulary import make_tokenizer
from tests.tiny import tiny_tokenizer
from tests.unit.bundle.refusals import SHARED, needs_shared, refused


def read(folder: Path, tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.save(str(folder / "tokenizer.json"))
    return read_tokenizer(folder)


def changed(name: str, value: object) -> Tokenizer:
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, name, value)
    return tokenizer


def without(name: str) -> Tokenizer:
    document = json.loads(tiny_tokenizer().to_str())
    document[name] = None
    return Tokenizer.from_str(json.dumps(document))


def renamed(old: str, new: str) -> Tokenizer:
    return Tokenizer.from_str(tiny_tokenizer().to_str().replace(old, new))


def swapped_sentinels() -> Tokenizer:
    text = tiny_tokenizer().to_str().replace("<extra_id_0>", "<x>").replace("<extra_id_1>", "<extra_id_0>")
    return Tokenizer.from_str(text.replace("<x>", "<extra_id_1>"))


def of_words() -> Tokenizer:
    return Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>"))


TEMPLATE = processors.TemplateProcessing(single="$A </s> </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
STARTED = processors.TemplateProcessing(single="<pad> $A </s>", special_tokens=[("</s>", 1), ("<pad>", 0)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: without("normalizer"), "tokenizer.json has no normaliser, T5's is nmt_nfkc of SentencePiece, so the"),
        (lambda: changed("normalizer", normalizers.NFC()), "has another normaliser than T5's nmt_nfkc: it makes"),
        (lambda: changed("normalizer", normalizers.NFKD()), "has another normaliser than T5's nmt_nfkc: it makes"),
        (
            lambda: changed("normalizer", normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
            "it makes 'afi1é' of",
        ),
        (
            lambda: changed("normalizer", normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")])),
            "it makes 'Toy▁é▁ß' of 'Toy é ß', T5's 'Toy é ß'",
        ),
        (lambda: without("pre_tokenizer"), "tokenizer.json has no pre-tokenizer, T5's is Metaspace"),
        (lambda: changed("pre_tokenizer", pre_tokenizers.Whitespace()), "it splits 'a toy' into ['a', 'toy']"),
        (lambda: changed("pre_tokenizer", pre_tokenizers.ByteLevel()), "it splits 'a toy' into ['Ġa', 'Ġtoy']"),
        (
            lambda: changed("pre_tokenizer", pre_tokenizers.Metaspace(prepend_scheme="never")),
            "it splits 'a toy' into ['a', '▁toy']",
        ),
        (lambda: without("post_processor"), "tokenizer.json does not end texts with </s> alone, as T5's template does"),
        (lambda: changed("post_processor", TEMPLATE), "does not end texts with </s> alone"),
        (lambda: changed("post_processor", STARTED), "does not end texts with </s> alone"),
        (lambda: renamed("<extra_id_0>", "<image>"), "has no token <extra_id_0>, T5's has a hundred such"),
        (swapped_sentinels, "has <extra_id_1> as 198 and <extra_id_0> as 197, in T5's they count downwards"),
        (of_words, "is of the kind WordLevel, T5's is Unigram"),
    ],
)
def test_a_tokenizer_of_other_rules_is_refused(tmp_path: Path, make: Callable[[], Tokenizer], message: str) -> None:
    with refused("invalid_bundle", message):
        read(tmp_path, make())


def test_the_remedy_is_named(tmp_path: Path) -> None:
    with refused("invalid_bundle", "give the tokenizer.json that was published with the model, or make it from its"):
        read(tmp_path, without("normalizer"))


def test_tokenizers_that_we_make_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, tiny_tokenizer()).get_vocab_size() == tiny_tokenizer().get_vocab_size()
    assert read(tmp_path, make_tokenizer([], 0)).normalizer is not None


@needs_shared
def test_the_tokenizer_of_t5_is_read() -> None:
    tokenizer = read_tokenizer(SHARED / "data" / "t5-tokenizer")
    for num_rows in (32100, 32128):
        check_size(tokenizer, num_rows, "t5")


@needs_shared
@pytest.mark.parametrize("num_rows", [32000, 32099, 32101, 32110, 33100, 250112])
def test_an_embedding_of_another_size_is_refused(num_rows: int) -> None:
    message = f"t5: the tokenizer has 32100 tokens, but the embedding has {num_rows} rows; give the tokenizer that"
    with refused("invalid_bundle", message):
        check_size(read_tokenizer(SHARED / "data" / "t5-tokenizer"), num_rows, "t5")
