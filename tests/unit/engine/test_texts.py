"""Text sessions: a text does not depend on when it joins, nor on the other texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.bundle.bundle import Bundle, open_bundle
from model.decoding.trie_arena import TrieArena
from model.engine.collate import collate
from model.engine.decoding_engine import SPECIAL, DecodingEngine
from model.engine.names import EngineName
from model.engine.offline import generate
from model.engine.onnx.executor import OnnxExecutor
from model.engine.plans import Plan, TextPlan
from model.engine.protocol import GeneratedText, Placement, TextSession
from model.engine.row_stepper import NetworkRowStepper
from model.engine.texts import DecodingTextSession
from model.engine.torch_executor import TorchExecutor
from model.network.network import Vip5Network
from model.network.row_cache import RowCache
from model.network.stacks import Memory
from model.planning.domain import ServedDomain
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineExplanation
from model.planning.runtime import Runtime, load_runtime
from tests.tiny import TINY_LAYOUT, tiny_bundle

TOLERANCE = 2e-5
WIDE = replace(TINY_LAYOUT, bottleneck=6, visual_tokens=3)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return load_runtime(tiny_bundle(tmp_path_factory.mktemp("texts"), ("toys", "words"), layouts={"words": WIDE}))


@pytest.fixture(scope="module")
def network(runtime: Runtime) -> Vip5Network:
    return open_bundle(runtime.feature_files["toys"].parents[2]).network()


@pytest.fixture(scope="module", params=[TorchExecutor, OnnxExecutor], ids=["torch", "onnx"])
def engine(request: pytest.FixtureRequest, runtime: Runtime, network: Vip5Network) -> DecodingEngine:
    tries = [runtime.domains[name].trie for name in ("toys", "words")]
    return DecodingEngine(request.param(network, torch.device("cpu")), TrieArena.of(tries))


@pytest.fixture(scope="module")
def plans(runtime: Runtime) -> list[TextPlan]:
    """Both domains; short, long and seeded texts, and a search with several beams."""
    plans = []
    for number in range(1, 25):
        domain = runtime.domains[("toys", "words")[number % 2]]
        query = OfflineExplanation(
            item_id=f"item-{number}",
            user_id="u2",
            feature="price " * (number % 5 * 4) or None,
            max_new_tokens=3 + number * 5 % 50,
            num_beams=3 if number % 6 == 0 else 1,
            temperature=1.5 * (number % 3 == 0),
            top_p=0.9,
            seed=number,
        )
        plan = plan_explanation(domain, query)
        plans.append(replace(plan, features=(_features(number, domain.spec.layout.feature_dim),)))
    return plans


@pytest.fixture(scope="module")
def alone(engine: DecodingEngine, plans: list[TextPlan]) -> list[GeneratedText]:
    return [generate(engine, [plan])[0] for plan in plans]


def _features(seed: int, dim: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((1, dim)).astype(np.float32)


def run(session: TextSession, plans: Sequence[TextPlan], seed: int) -> dict[int, GeneratedText]:
    """Admit plans at random between steps; checks that the reported tokens are those of the texts."""
    dice = random.Random(seed)
    waiting = list(enumerate(plans))
    dice.shuffle(waiting)
    name_of: dict[int, int] = {}
    told: dict[int, list[int]] = {}
    texts: dict[int, GeneratedText] = {}
    while waiting or name_of:
        joining = [waiting.pop() for _ in range(min(dice.randint(0, 3), session.num_free, len(waiting)))]
        for row, (name, _) in zip(session.admit([plan for _, plan in joining]), joining, strict=True):
            assert row not in name_of
            name_of[row] = name
        for each in session.step():
            assert each.failure is None
            if each.token_id is not None:
                told.setdefault(name_of[each.row], []).append(each.token_id)
            if each.finished is not None:
                texts[name_of.pop(each.row)] = each.finished
    for name, tokens in told.items():
        assert tuple(tokens) == texts[name].token_ids
    return texts


@pytest.mark.parametrize("seed", [0, 1])
def test_a_text_is_the_same_alone_and_among_texts_that_come_and_go(
    engine: DecodingEngine, plans: list[TextPlan], alone: list[GeneratedText], seed: int
) -> None:
    texts = run(engine.open_texts(5), plans, seed)

    assert len({text.token_ids for text in alone}) > len(alone) // 2
    for name, expected in enumerate(alone):
        assert (texts[name].token_ids, texts[name].finish_reason) == (expected.token_ids, expected.finish_reason)
        assert texts[name].score == pytest.approx(expected.score, abs=1e-3)


def test_a_session_gives_all_rows_back(engine: DecodingEngine, plans: list[TextPlan]) -> None:
    session = engine.open_texts(6)
    run(session, plans, 3)

    assert session.num_free == 6
    assert session.step() == []


def test_more_plans_than_free_rows_are_refused(engine: DecodingEngine, plans: list[TextPlan]) -> None:
    session = engine.open_texts(2)
    session.admit(plans[:1])

    with pytest.raises(ValueError, match="2 plans for 1 free rows"):
        session.admit(plans[1:3])
    assert session.num_free == 1


def test_a_cancelled_text_frees_its_row_and_leaves_the_others_alone(
    engine: DecodingEngine, plans: list[TextPlan], alone: list[GeneratedText]
) -> None:
    names = [name for name, text in enumerate(alone) if len(text.token_ids) > 4][:3]
    search = next(name for name, plan in enumerate(plans) if plan.num_beams > 1)
    session = engine.open_texts(4)
    rows = session.admit([plans[name] for name in (*names, search)])
    session.step()
    session.step()
    cut = session.cancel(rows[1])
    assert session.cancel(rows[3]).finish_reason == "cancelled"

    assert (cut.token_ids, cut.finish_reason) == (alone[names[1]].token_ids[:2], "cancelled")
    assert session.num_free == 2
    finished: dict[int, GeneratedText] = {}
    while session.num_free < 4:
        finished |= {each.row: each.finished for each in session.step() if each.finished}
    assert [finished[row].token_ids for row in (rows[0], rows[2])] == [
        alone[names[0]].token_ids, alone[names[2]].token_ids
    ]  # fmt: skip


def test_streams_go_on_between_the_steps_of_a_search(engine: DecodingEngine, plans: list[TextPlan]) -> None:
    stream = replace(next(plan for plan in plans if plan.num_beams == 1), max_new_tokens=40, temperature=5.0, seed=1)
    search = replace(next(plan for plan in plans if plan.num_beams > 1), max_new_tokens=30)
    session = engine.open_texts(2)
    stream_row, _ = session.admit([stream, search])
    told: list[int] = []
    for _ in range(4):
        told += [each.row for each in session.step()]

    assert told == [stream_row] * 4
    assert session.num_free == 0, "the search has not ended, and did not hold the stream up"


class Failing:
    """An executor whose steps run out of memory for more than so many rows, and whose searches fail."""

    def __init__(self, executor: TorchExecutor, most: int) -> None:
        self._executor, self._most = executor, most
        self.device, self.num_slots, self.place = executor.device, executor.num_slots, executor.place
        self.is_exact = executor.is_exact
        self.encode = executor.encode

    def computing(self) -> AbstractContextManager[object]:
        return torch.inference_mode()

    def row_stepper(self) -> FailingRows:
        return FailingRows(self._executor.row_stepper(), self._most)


class FailingRows:
    def __init__(self, stepper: NetworkRowStepper, most: int) -> None:
        self._stepper, self._most = stepper, most
        self.admit, self.release = stepper.admit, stepper.release

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        if len(rows) > self._most:
            raise MemoryError
        return self._stepper.step(rows, tokens)


def test_a_step_without_memory_can_be_taken_by_fewer_rows_at_a_time(
    network: Vip5Network, plans: list[TextPlan], alone: list[GeneratedText]
) -> None:
    names = [name for name, plan in enumerate(plans) if plan.num_beams == 1][:4]
    session = DecodingTextSession(Failing(TorchExecutor(network, torch.device("cpu")), 2), 4, SPECIAL)
    rows = session.admit([plans[name] for name in names])
    name_of = dict(zip(rows, names, strict=True))
    texts: dict[int, GeneratedText] = {}
    while len(texts) < 4:
        running = [row for row in rows if name_of[row] not in texts]
        halves = [running[:2], running[2:]]
        if len(running) > 2:
            with pytest.raises(MemoryError):
                session.step()
        for half in halves if len(running) > 2 else [running]:
            texts |= {name_of[each.row]: each.finished for each in session.step(half) if each.finished}

    assert {name: text.token_ids for name, text in texts.items()} == {name: alone[name].token_ids for name in names}


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_texts_for_which_there_is_no_room_leave_the_running_ones_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: EngineName
) -> None:
    bare = replace(TINY_LAYOUT, bottleneck=0)
    engine = load_runtime(tiny_bundle(tmp_path / "bare", layouts={"toys": bare}), engine=name).engine
    bundle = open_bundle(tiny_bundle(tmp_path / "both", ("toys", "words"), layouts={"toys": bare}))
    first, second = (_text_plan(bundle, domain, slot) for slot, domain in enumerate(("toys", "words")))
    (expected,) = generate(engine, [first])
    session = engine.open_texts(2)
    session.admit([first])
    session.step()
    weights = {**bundle.backbone.weights, **bundle.domains["words"].adapter}
    engine.place(1, Placement(TINY_LAYOUT, weights, _served(bundle, "words", 1).trie))
    with monkeypatch.context() as patches:
        patches.setattr(RowCache, "occupy", _out_of_memory)
        with pytest.raises(MemoryError):
            session.admit([second])
    while not (finished := [each.finished for each in session.step() if each.finished]):
        pass
    assert finished[0].token_ids == expected.token_ids


def _text_plan(bundle: Bundle, name: str, slot: int) -> TextPlan:
    query = OfflineExplanation(item_id="item-1", max_new_tokens=8, temperature=5.0, seed=1)
    return plan_explanation(_served(bundle, name, slot), query)


def _served(bundle: Bundle, name: str, slot: int) -> ServedDomain:
    return ServedDomain.of(slot, bundle.domains[name], bundle.tokenizer, bundle.hash)


def _out_of_memory(*_: object) -> None:
    raise MemoryError


@torch.no_grad()
@pytest.mark.parametrize("is_static", [False, True])
def test_rows_at_different_positions_equal_teacher_forcing(
    network: Vip5Network, plans: list[TextPlan], *, is_static: bool
) -> None:
    """Rows join, pause and leave while buffers grow; the logits of each row equal teacher forcing."""
    stepper = NetworkRowStepper(_reading(network), network, is_static=is_static)
    dice = random.Random(4)
    texts: dict[int, tuple[TextPlan, list[int]]] = {}
    max_rows = longest = 0
    for _ in range(80):
        free = [row for row in range(9) if row not in texts]
        if free and dice.random() < 0.5:
            joining = {row: dice.choice(plans) for row in free[: dice.randint(1, 3)]}
            stepper.admit(list(joining), list(joining.values()))
            texts |= {row: (plan, []) for row, plan in joining.items()}
        if len(texts) > 2 and dice.random() < 0.3:
            leaving = dice.choice(sorted(texts))
            stepper.release(leaving)
            del texts[leaving]
        rows = sorted(row for row in texts if dice.random() < 0.9)
        if not rows:
            continue
        for row in rows:
            texts[row][1].append(dice.randrange(2, 40) if texts[row][1] else 0)
        logits = stepper.step(rows, torch.tensor([texts[row][1][-1] for row in rows]))
        for place, row in dice.sample(list(enumerate(rows)), 1):
            plan, fed = texts[row]
            expected = _teacher_forced(network, plan, fed)
            assert float((logits[place] - expected).abs().max()) < TOLERANCE * float(1 + expected.abs().max())
        max_rows, longest = max(max_rows, len(rows)), max(longest, *(len(fed) for _, fed in texts.values()))
    assert max_rows > 4, "the first buffers have four rows"
    assert longest > 32, "and 32 positions"


def _reading(network: Vip5Network) -> Callable[[Sequence[Plan]], tuple[Vip5Network, Memory]]:
    def read(plans: Sequence[Plan]) -> tuple[Vip5Network, Memory]:
        return network, network.memorise(collate(plans, network, torch.device("cpu")))

    return read


def _teacher_forced(network: Vip5Network, plan: Plan, fed: list[int]) -> Tensor:
    batch = collate([plan], network, torch.device("cpu"))
    targets = torch.tensor([[*fed[1:], 0]])
    return network.decode(targets, network.memorise(batch), batch.rows)[0, -1]


def test_memory_of_ended_texts_is_given_back(network: Vip5Network, plans: list[TextPlan]) -> None:
    cache = RowCache(network, is_static=False)
    batch = collate([plans[0]], network, torch.device("cpu"))
    with torch.no_grad():
        cache.occupy([6], network.memorise(batch), [plans[0].prompt.num_tokens])
    assert cache.num_rows == 8

    cache.release()

    assert cache.num_rows == 0
