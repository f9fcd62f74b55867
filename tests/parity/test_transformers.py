"""A plain T5 against transformers' own, with random weights.

transformers 5 and the search that ours must equal differ in form, not in what is compared here:
- T5Config takes `tie_word_embeddings=False` to mean "no scale before the head" and still ties the head; the tests give
  the model a head of its own.
- A beam that is not there has the score -1e9 instead of being absent, and decodes on; what it leads to is filled up
  with at the end of an answer and recognised by that score.
- A prefix from which no item can be reached must still be allowed a token (an empty list is an error): it is `</s>`,
  and only such beams come to it.
- With a length penalty of 0, `early_stopping=False` ends a row when no running beam is better than the worst of K
  finished ones, which loses nothing; "never" differs from it only with a positive penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.trie import Trie
from model.decoding.trie_arena import TrieArena
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import generate, rank
from model.engine.plans import Plan, RankingPlan, TextPlan
from model.engine.protocol import Ranking
from model.engine.torch_executor import TorchExecutor
from model.network.banks import RowIndex
from model.network.config import BackboneConfig, FeedForward
from model.network.network import EOS_ID, NO_ADDITIONS, PAD_ID, START_ID, EncoderBatch, Vip5Network
from model.network.weights import freeze, load_backbone, load_domain
from model.prompts.assembly import TokenRows
from model.prompts.prompt import Prompt
from tests.parity.golden import SCORE_TOLERANCE, STATE_TOLERANCE, largest_difference
from tests.plans import plan_of, plan_to

VOCAB_SIZE = 60
ABSENT = -1e8
NEAR_TIE = 1e-4

Identifier: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """The same weights in their model and in ours."""

    theirs: Any  # T5ForConditionalGeneration, whose `generate` is annotated for other classes
    network: Vip5Network


VARIANTS: tuple[tuple[FeedForward, bool], ...] = (
    ("relu", True),
    ("gated-gelu", True),
    ("relu", False),
    ("gated-gelu", False),
)


@pytest.fixture(scope="module", params=VARIANTS, ids=["relu-tied", "gated-tied", "relu-untied", "gated-untied"])
def pair(request: pytest.FixtureRequest) -> Pair:
    feed_forward, is_tied = request.param
    return random_pair(feed_forward, is_tied=is_tied)


def random_pair(feed_forward: FeedForward, *, is_tied: bool) -> Pair:
    """Heads · d_kv differs from d_model, decoder and encoder differ in depth, norms are not 1, logits have a spread."""
    torch.manual_seed(7)
    config = BackboneConfig(
        vocab_size=VOCAB_SIZE,
        d_model=32,
        d_kv=6,
        d_ff=48,
        num_heads=4,
        num_layers=3,
        num_decoder_layers=2,
        feed_forward_proj=feed_forward,
        tie_word_embeddings=is_tied,
    )
    theirs: Any = T5ForConditionalGeneration(
        T5Config.from_dict(
            {name: value for name, value in asdict(config).items() if name != "dropout_rate"}
            | {"decoder_start_token_id": START_ID}
        )
    )
    theirs.eval()
    if not is_tied:
        theirs.lm_head.weight = nn.Parameter(torch.randn_like(theirs.lm_head.weight) * 0.4)
    for name, parameter in theirs.named_parameters():
        parameter.data.copy_(parameter + 0.3 * torch.randn_like(parameter) if "norm" in name else parameter * 1.5)
    network = Vip5Network(config, [NO_ADDITIONS])
    load_backbone(network, theirs.state_dict())
    load_domain(network, 0, theirs.state_dict())
    freeze(network)
    return Pair(theirs, network)


def test_their_model_has_the_form_that_is_compared(pair: Pair) -> None:
    is_tied = pair.network.config.tie_word_embeddings
    assert torch.equal(pair.theirs.lm_head.weight, pair.theirs.shared.weight) == is_tied
    assert pair.theirs.config.scale_decoder_outputs == is_tied


@pytest.mark.parametrize("lengths", [(9,), (1, 12, 5), (200, 140)])
def test_encoder_states_and_logits_equal_theirs(pair: Pair, lengths: tuple[int, ...]) -> None:
    batch, attention_mask = _padded(lengths)
    targets = torch.randint(2, VOCAB_SIZE, (len(lengths), 140 if max(lengths) > 100 else 6))
    theirs = pair.theirs(input_ids=batch.input_ids, attention_mask=attention_mask, labels=targets)
    states, _ = pair.network.encode(batch)
    is_token = attention_mask.bool()
    assert largest_difference(states[is_token], theirs.encoder_last_hidden_state[is_token]) < STATE_TOLERANCE
    assert largest_difference(pair.network(batch, targets), theirs.logits) < STATE_TOLERANCE
    assert float(theirs.logits.std()) > 0.5


@pytest.mark.parametrize(("num_items", "longest", "num_beams"), [(300, 3, 5), (300, 3, 20), (25, 4, 8), (6, 2, 10)])
def test_rankings_equal_their_constrained_search(pair: Pair, num_items: int, longest: int, num_beams: int) -> None:
    items = _random_items(num_items, longest)
    plans = [_plan(length, seed) for seed, length in enumerate((7, 7, 15, 3))]
    rankings = _rank(pair.network, items, plans, num_beams)
    for plan, ranking in zip(plans, rankings, strict=True):
        expected = _their_ranking(pair, items, plan, num_beams)
        _assert_same([items[row] for row in ranking.leaves], ranking.scores.tolist(), expected)
        assert len(expected) >= min(num_beams, 6) - 1


def test_rankings_of_a_padded_batch_equal_theirs() -> None:
    pair = random_pair("relu", is_tied=True)
    items = _random_items(120, 3)
    plans = [_plan(length, seed) for seed, length in enumerate((4, 11, 6))]
    batch, attention_mask = _padded([plan.prompt.num_tokens for plan in plans])
    for line, plan in zip(batch.input_ids, plans, strict=True):
        line[: plan.prompt.num_tokens] = torch.from_numpy(plan.prompt.input_ids)
    expected = _generate(pair, items, batch.input_ids, attention_mask, 6)
    for ranking, row in zip(_rank(pair.network, items, plans, 6), expected, strict=True):
        _assert_same([items[row] for row in ranking.leaves], ranking.scores.tolist(), row)


def test_greedy_text_equals_theirs(pair: Pair) -> None:
    plans = [_plan(length, seed) for seed, length in enumerate((5, 9, 2))]
    engine = _engine(pair.network, [(2,)])
    texts = generate(engine, [plan_to(TextPlan, plan, max_new_tokens=15) for plan in plans])
    for plan, text in zip(plans, texts, strict=True):
        ids = torch.from_numpy(plan.prompt.input_ids).unsqueeze(0)
        (sequence,) = pair.theirs.generate(ids, max_new_tokens=15, do_sample=False, num_beams=1).tolist()
        ended = [*text.token_ids, EOS_ID] if text.finish_reason == "stop" else list(text.token_ids)
        assert ended == sequence[1:]


def _padded(lengths: Sequence[int]) -> tuple[EncoderBatch, Tensor]:
    longest = max(lengths)
    attention_mask = (torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)).long()
    input_ids = torch.randint(2, VOCAB_SIZE, (len(lengths), longest)) * attention_mask
    empty = torch.zeros_like(input_ids)
    batch = EncoderBatch(
        input_ids=input_ids,
        whole_word_ids=empty,
        category_ids=empty,
        features=torch.zeros(len(lengths), 0, 0),
        rows=RowIndex(domain=0, adapter=0),
        is_padded=len(set(lengths)) > 1,
    )
    return batch, attention_mask


def _random_items(num_items: int, longest: int) -> list[Identifier]:
    """Sorted, so that a leaf's number is the item's; few tokens, so that many are prefixes of others."""
    generator = np.random.default_rng(num_items)
    last_token = 12 if num_items > 100 else 5
    items: set[Identifier] = set()
    while len(items) < num_items:
        length = int(generator.integers(1, longest + 1))
        items.add(tuple(int(token) for token in generator.integers(2, last_token, length)))
    assert any(item[:-1] in items for item in items)
    return sorted(items)


def _plan(length: int, seed: int) -> Plan:
    ids = np.random.default_rng(seed).integers(2, VOCAB_SIZE, length).astype(np.int64)
    zeros = np.zeros_like(ids)
    prompt = Prompt(ids, zeros, zeros, image_items=(), num_tokens_untruncated=length)
    return plan_of(prompt)


def _engine(network: Vip5Network, items: Sequence[Identifier]) -> DecodingEngine:
    rows = TokenRows.of(items)
    trie = Trie.build(rows.flat, rows.offsets, eos_id=EOS_ID)
    assert trie.rows_of_leaves.tolist() == list(range(len(items)))
    return DecodingEngine(TorchExecutor(network, torch.device("cpu")), TrieArena.of([trie]))


def _rank(network: Vip5Network, items: Sequence[Identifier], plans: Sequence[Plan], num_beams: int) -> list[Ranking]:
    everything = Eligibility.of(LeafMask.of(np.ones(len(items), dtype=np.bool_)))
    searches = [plan_to(RankingPlan, plan, eligibility=everything, k=num_beams, num_beams=num_beams) for plan in plans]
    return rank(_engine(network, items), searches)


def _their_ranking(
    pair: Pair, items: Sequence[Identifier], plan: Plan, num_beams: int
) -> list[tuple[Identifier, float]]:
    input_ids = torch.from_numpy(plan.prompt.input_ids).unsqueeze(0)
    (ranking,) = _generate(pair, items, input_ids, torch.ones_like(input_ids), num_beams)
    return ranking


def _generate(
    pair: Pair, items: Sequence[Identifier], input_ids: Tensor, mask: Tensor, num_beams: int
) -> list[list[tuple[Identifier, float]]]:
    """Their items and scores for each row, without what only fills up."""
    output = pair.theirs.generate(
        input_ids,
        attention_mask=mask,
        prefix_allowed_tokens_fn=_allowed(items),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=max(map(len, items)) + 1,
        do_sample=False,
        early_stopping=False,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    answers = [
        (tuple(token for token in sequence[1:] if token not in (PAD_ID, EOS_ID)), score)
        for sequence, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True)
    ]
    rows = [answers[start : start + num_beams] for start in range(0, len(answers), num_beams)]
    return [[(item, score) for item, score in row if score > ABSENT] for row in rows]


def _allowed(items: Sequence[Identifier]) -> Callable[[int, Tensor], list[int]]:
    following: dict[Identifier, set[int]] = {}
    for item in items:
        for end, token in enumerate((*item, EOS_ID)):
            following.setdefault(item[:end], set()).add(token)

    def allowed(_row: int, prefix: Tensor) -> list[int]:
        return sorted(following.get(tuple(prefix[1:].tolist()), {EOS_ID}))

    return allowed


def _assert_same(
    items: Sequence[Identifier], scores: Sequence[float], expected: Sequence[tuple[Identifier, float]]
) -> None:
    """Same items in the same order, neighbours that are nearly tied may stand either way."""
    assert scores == pytest.approx([score for _, score in expected], abs=SCORE_TOLERANCE)
    ours = dict(zip(items, scores, strict=True))
    for item, (their_item, their_score) in zip(items, expected, strict=True):
        assert item == their_item or abs(ours[their_item] - their_score) < NEAR_TIE
    assert set(items) == {item for item, _ in expected}
