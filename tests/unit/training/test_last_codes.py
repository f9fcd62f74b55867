"""Last codes drawn anew for every sample."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from model.bundle.codebook import Codebook
from model.datasets.dataset import Dataset
from model.datasets.semantic import with_codebook
from model.prompts.templates import TEMPLATES
from model.prompts.tokenizer import TextTokenizer
from model.training.config import Prompts
from model.training.last_codes import LastCodes
from model.training.sampling import DomainSampler, Kind, Sample, family_of
from tests.tiny import tiny_tokenizer
from tests.unit.bundle.refusals import refused
from tests.unit.training.tiny_data import tiny_dataset

TOKENIZER = TextTokenizer(tiny_tokenizer())
NUM_PATHS, NUM_LAST = 12, 20


def coded(first_word: int = 40) -> Dataset:
    """Item n of 60 is on the path n % 12 of 12."""
    seen = np.array([[path // 4, path % 4] for path in range(NUM_PATHS)], dtype=np.int32)
    return with_codebook(tiny_dataset(), Codebook((3, 4), NUM_LAST, first_word, seen), np.arange(60) % NUM_PATHS, 0)


DATASET = coded()


def draws(template: str, last_codes: str = "drawn", count: int = 200) -> list[Sample]:
    prompts = Prompts(num_candidates=8, templates=(template,), last_codes=last_codes)  # type: ignore[arg-type]
    sampler = DomainSampler(DATASET, TOKENIZER, prompts, visual_tokens=1)
    kind = Kind(0, family_of(TEMPLATES[template]), (TEMPLATES[template],), 1.0)
    return [sampler.draw(kind, "train", np.random.default_rng(seed)) for seed in range(count)]


def shown(sample: Sample) -> list[tuple[int, str]]:
    """Items of the prompt, and their identifiers in it."""
    ids = sample.prompt.input_ids
    places = np.flatnonzero(ids == TOKENIZER.image_id)
    texts = [TOKENIZER.decode(ids[place - 3 : place].tolist()) for place in places]
    return list(zip(sample.prompt.image_items, texts, strict=True))


@pytest.mark.parametrize("template", ["A-3", "B-5"])
def test_an_item_keeps_its_path_and_gets_every_last_code(template: str) -> None:
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for sample in draws(template, count=400):
        for item, text in shown(sample):
            path, last = text.rsplit(" ", 1)
            assert path == DATASET.catalog.indices[item].rsplit(" ", 1)[0]
            found[item][last] += 1
    lasts = set().union(*found.values())
    assert lasts == {str(47 + last) for last in range(NUM_LAST)}
    assert max(max(each.values()) for each in found.values() if each.total() > 40) < 0.3 * 400


@pytest.mark.parametrize("template", ["A-3", "B-5"])
def test_items_of_one_sample_have_different_identifiers(template: str) -> None:
    for sample in draws(template):
        texts = [text for _, text in shown(sample)]
        assert len(set(texts)) == len(texts)


def test_a_candidate_is_the_same_in_the_prompt_and_as_its_target() -> None:
    for sample in draws("B-5"):
        assert TOKENIZER.decode(sample.target_ids[:-1]) in [text for _, text in shown(sample)]


def test_a_single_item_has_a_drawn_code_after_its_prefix_too() -> None:
    texts = {TOKENIZER.decode(sample.prompt.input_ids.tolist()) for sample in draws("C-12", count=400)}
    assert len(texts) > 100  # 20 users with a review each


def test_the_seed_decides() -> None:
    first, again = draws("A-3", count=20), draws("A-3", count=20)
    assert [each.target_ids for each in first] == [each.target_ids for each in again]
    assert all((a.prompt.input_ids == b.prompt.input_ids).all() for a, b in zip(first, again, strict=True))


def test_without_drawing_identifiers_are_the_catalog_s() -> None:
    for sample in draws("A-3", "given", 50):
        assert all(text == DATASET.catalog.indices[item] for item, text in shown(sample))
        assert TOKENIZER.decode(sample.target_ids[:-1]) in DATASET.catalog.indices


def test_as_many_items_as_last_codes_fit_on_a_path() -> None:
    book = Codebook((1,), 5, 40, np.zeros((1, 1), np.int32))
    last_codes = LastCodes.of(book, tuple(book.index_of((0,), last) for last in range(5)), TOKENIZER)
    for seed in range(20):
        last_codes.redraw(range(5), np.random.default_rng(seed))
        assert len({last_codes.tokens.identifiers.row(item).tobytes() for item in range(5)}) == 5


def test_a_dataset_without_a_codebook_cannot_draw() -> None:
    with refused("invalid_training", 'has no codebook, so last_codes = "drawn" has none to draw'):
        DomainSampler(replace(DATASET, codebook=None), TOKENIZER, Prompts(last_codes="drawn"), visual_tokens=1)


def test_last_codes_of_several_tokens_are_refused() -> None:
    with refused("invalid_training", "the last code 100 has several tokens"):
        DomainSampler(coded(first_word=80), TOKENIZER, Prompts(last_codes="drawn"), visual_tokens=1)
