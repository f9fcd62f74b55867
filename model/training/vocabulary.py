"""A small vocabulary for a backbone trained from scratch: the words of prompts, numbers, and a dataset's own words.

Numbers are split before their last two digits, `7391` into `▁73` and `91`, so that identifiers have few tokens and each
token is frequent. Every text can be encoded, character by character if necessary.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from model.datasets.dataset import Dataset
from model.prompts.assembly import UNKNOWN_TITLE
from model.prompts.templates import SEPARATORS, TEMPLATES
from model.prompts.tokenizer import EOS, IMAGE, PAD, UNK

_SPECIALS = (PAD, EOS, UNK)
_LEADS = 1000
"""Numbers below this are one token at the start of a word."""

# The tokenizer picks the segmentation with the largest sum of scores: few pieces, and frequent ones.
_NUMBER_SCORE, _WORD_SCORE, _CHARACTER_SCORE = -4.0, -6.0, -8.0
_WORD = re.compile(r"[^\W\d_]+|[^\w\s]+")


def make_tokenizer(datasets: Sequence[Dataset], num_words: int) -> Tokenizer:
    """A unigram tokenizer with T5's rules and the `num_words` most frequent words of titles and reviews."""
    pieces: dict[str, float] = {}
    for character in _characters(datasets):
        pieces[character] = _CHARACTER_SCORE
        pieces[f"▁{character}"] = _CHARACTER_SCORE
    pieces["▁"] = _CHARACTER_SCORE
    for word in [*_prompt_words(), *_frequent_words(datasets, num_words)]:
        pieces[f"▁{word}"] = _WORD_SCORE
    for number in range(_LEADS):
        pieces[f"▁{number}"] = _NUMBER_SCORE
    for number in range(100):
        pieces[f"{number:02d}"] = _NUMBER_SCORE
    return _tokenizer(pieces)


def make_identifier_tokenizer(datasets: Sequence[Dataset]) -> Tokenizer:
    """A tokenizer with the words of identifiers, for prompts of nothing but items; all other words are `<unk>`."""
    words = {word for dataset in datasets for index in dataset.catalog.indices for word in index.split()}
    return _tokenizer({"▁": _CHARACTER_SCORE} | {f"▁{word}": _WORD_SCORE for word in sorted(words)})


def _tokenizer(pieces: dict[str, float]) -> Tokenizer:
    vocabulary = [(name, 0.0) for name in _SPECIALS] + list(pieces.items()) + [(IMAGE, 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=_SPECIALS.index(UNK)))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, _SPECIALS.index(EOS))]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in (*_SPECIALS, IMAGE)])
    return tokenizer


def _characters(datasets: Sequence[Dataset]) -> list[str]:
    found = set(string.digits + string.ascii_letters + string.punctuation)
    found.update(character for text in _texts(datasets) for character in text if not character.isspace())
    return sorted(found)


def _prompt_words() -> list[str]:
    texts = [re.sub(r"\{\w+\}\S*", " ", template.text) for template in TEMPLATES.values()]
    words = [word for text in [*texts, *SEPARATORS.values()] for word in text.split()]
    return sorted({*words, *UNKNOWN_TITLE.split(), "user_", "item_", "yes", "no"})


def _frequent_words(datasets: Sequence[Dataset], num_words: int) -> list[str]:
    counts = Counter(word for text in _texts(datasets) for word in _WORD.findall(text))
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [word for word, _ in ranked[:num_words]]


def _texts(datasets: Sequence[Dataset]) -> Iterable[str]:
    for dataset in datasets:
        yield from dataset.catalog.indices
        yield from (title for title in dataset.catalog.titles if title)
        for review in dataset.reviews:
            yield from (text for text in (review.headline, review.feature, review.explanation) if text)
