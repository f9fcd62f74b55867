from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.text import GREEDY, BeamOptions, Hypothesis, Sampling, nucleus
from tests.texts import decode_one_beam, search_text
from tests.unit.decoding.tables import EOS, SPECIAL, LogitsOf, Path, PathStepper, log_prob, random_table

VOCAB_SIZE = 6


@given(st.integers(0, 1000), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_nucleus_is_the_smallest_set_of_likeliest_tokens_with_the_mass(seed: int, top_p: float) -> None:
    probs = np.random.default_rng(seed).dirichlet([0.6] * 8).astype(np.float32)
    kept = nucleus(torch.from_numpy(probs), top_p).numpy()
    inside = np.flatnonzero(kept)
    assert np.array_equal(kept[inside], probs[inside])
    assert probs[inside].min() >= np.delete(probs, inside).max(initial=0)
    mass = probs[inside].sum(dtype=np.float64)
    assert mass >= top_p - 1e-6
    assert mass - probs[inside].min() < top_p + 1e-6


def test_the_nucleus_of_all_mass_is_every_token() -> None:
    probs = torch.tensor([0.5, 0.2, 0.2, 0.1])
    assert torch.equal(nucleus(probs, 1.0), probs)


def test_greedy_text_takes_the_likeliest_token_at_each_step() -> None:
    table = random_table(3, VOCAB_SIZE)
    (text,) = _decode([table], [GREEDY], [20])
    prefix: Path = ()
    while (token := int(table(prefix).argmax())) != EOS and len(prefix) < 20:
        prefix = (*prefix, token)
    assert text.token_ids == prefix
    assert text.is_complete == (len(prefix) < 20)
    ended = (*prefix, EOS) if text.is_complete else prefix
    assert text.score == pytest.approx(log_prob(table, ended), abs=1e-4)


def test_the_same_seed_draws_the_same_text_beside_other_rows() -> None:
    table = random_table(5, VOCAB_SIZE)
    drawn = Sampling(temperature=0.9, top_p=0.95, seed=11)
    (alone,) = _decode([table], [drawn], [12])
    other = Sampling(temperature=2.0, seed=4)
    first, second, third = _decode([random_table(6, VOCAB_SIZE), table, table], [other, drawn, GREEDY], [30, 12, 12])
    assert second.token_ids == alone.token_ids
    assert {first.token_ids, third.token_ids}.isdisjoint({alone.token_ids})


def test_other_seeds_draw_other_texts() -> None:
    table = random_table(5, VOCAB_SIZE)
    texts = {_decode([table], [Sampling(temperature=1.0, seed=seed)], [8])[0].token_ids for seed in range(8)}
    assert len(texts) > 4


def test_without_a_seed_texts_differ_from_call_to_call() -> None:
    table = random_table(5, VOCAB_SIZE)
    texts = {_decode([table], [Sampling(temperature=1.0)], [8])[0].token_ids for _ in range(10)}
    assert len(texts) > 1


def test_tokens_are_drawn_as_often_as_the_temperature_and_the_nucleus_say() -> None:
    logits = np.log([0.05, 0.2, 0.45, 0.3])
    flattened = np.exp(logits / 2) / np.exp(logits / 2).sum()
    expected = np.where(flattened >= np.sort(flattened)[-2], flattened, 0)  # 0.38 + 0.31 holds the mass of 0.6
    num_draws = 2000
    sampling = [Sampling(temperature=2.0, top_p=0.6, seed=seed) for seed in range(num_draws)]
    texts = _decode([lambda _prefix: logits] * num_draws, sampling, [1] * num_draws)
    counts = Counter(text.token_ids[0] for text in texts)
    assert [counts[token] / num_draws for token in range(4)] == pytest.approx(expected / expected.sum(), abs=0.04)


@pytest.mark.parametrize("temperature", [5e-324, 4e-181, 1e-45, 1e-39, 1e-30, 1e-12])
@pytest.mark.parametrize("top_p", [5e-324, 1e-50, 1e-30, 1.0])
def test_the_lowest_temperatures_and_masses_draw_the_likeliest_token(temperature: float, top_p: float) -> None:
    table = random_table(3, VOCAB_SIZE)
    texts = _decode([table] * 2, [GREEDY, Sampling(temperature, top_p, seed=1)], [8, 8])
    assert texts[0] == texts[1]


def test_the_lowest_mass_draws_the_likeliest_token_at_any_temperature() -> None:
    table = random_table(3, VOCAB_SIZE)
    texts = _decode([table] * 2, [GREEDY, Sampling(10.0, 5e-324, seed=1)], [8, 8])
    assert texts[0] == texts[1]


def test_the_caller_sees_every_token_and_may_end_a_row() -> None:
    tables = [_never_ending(seed) for seed in range(3)]
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}

    def on_token(row: int, token: int) -> bool:
        seen[row].append(token)
        return not (row == 1 and len(seen[1]) == 3)

    texts = decode_one_beam(PathStepper(tables), [GREEDY] * 3, [6, 6, 4], SPECIAL, on_token=on_token)
    assert [list(text.token_ids) for text in texts] == [seen[0], seen[1], seen[2]]
    assert [len(text.token_ids) for text in texts] == [6, 3, 4]
    assert not any(text.is_complete for text in texts)


def test_decoding_ends_with_the_last_row_that_runs() -> None:
    stepper = PathStepper([_never_ending(0), _never_ending(1)])
    decode_one_beam(stepper, [GREEDY] * 2, [2, 5], SPECIAL)
    assert stepper.num_steps == 5


def test_the_end_is_not_among_the_tokens_that_the_caller_sees() -> None:
    def on_token(row: int, token: int) -> bool:
        raise AssertionError(f"row {row} was told of token {token}")

    def certain_end(_prefix: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([0.0, 9, 0, 0])

    (text,) = decode_one_beam(PathStepper([certain_end]), [GREEDY], [5], SPECIAL, on_token=on_token)
    assert (text.token_ids, text.is_complete) == ((), True)
    assert text.score == pytest.approx(log_prob(certain_end, (EOS,)), abs=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
def test_a_search_with_a_beam_for_every_text_finds_the_best_ones(length_penalty: float) -> None:
    table = random_table(8, 4)
    options = BeamOptions(num_beams=40, max_new_tokens=3, length_penalty=length_penalty)
    found = search_text(PathStepper([table]), options, SPECIAL)
    best = sorted(_all_texts(table, 4, 3, length_penalty), key=lambda text: -text.score)
    assert len(best) == 40
    assert [(text.token_ids, text.is_complete) for text in found] == [(t.token_ids, t.is_complete) for t in best]
    assert [text.score for text in found] == pytest.approx([text.score for text in best], abs=1e-4)


def _decode(tables: list[LogitsOf], sampling: list[Sampling], max_new_tokens: list[int]) -> list[Hypothesis]:
    return decode_one_beam(PathStepper(tables), sampling, max_new_tokens, SPECIAL)


def _never_ending(seed: int) -> LogitsOf:
    table = random_table(seed, VOCAB_SIZE)

    def logits_of(prefix: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        logits = table(prefix).copy()
        logits[EOS] = -50.0
        return logits

    return logits_of


def _all_texts(table: LogitsOf, vocab_size: int, max_new_tokens: int, length_penalty: float) -> list[Hypothesis]:
    """Every text that ends in time, and every one that is cut."""
    going_on = [token for token in range(vocab_size) if token != EOS]
    texts = []
    for length in range(max_new_tokens + 1):
        for tokens in product(going_on, repeat=length):
            is_complete = length < max_new_tokens
            total = log_prob(table, (*tokens, EOS) if is_complete else tokens)
            texts.append(Hypothesis(tokens, total / (length + 1) ** length_penalty, is_complete))
    return texts
