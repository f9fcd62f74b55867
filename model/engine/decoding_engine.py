"""The engine that searches over whatever executor computes the network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.beams import SpecialIds
from model.decoding.items import ItemRows, ItemSearch, search_items
from model.decoding.trie import NO_ITEMS, TrieArena
from model.engine.executor import EncodedBatch, Executor
from model.engine.protocol import (
    EncoderInput,
    GeneratedText,
    OnToken,
    Placement,
    Ranking,
    RankingWork,
    ScoringWork,
    TextSession,
    TextWork,
    Timings,
)
from model.engine.rankings import CERTIFIED_BEAM_LIMIT, rankings_of, widened_work
from model.engine.texts import DecodingTextSession
from model.network.network import EOS_ID, START_ID

SPECIAL = SpecialIds(start=START_ID, eos=EOS_ID)
LEAST_OF_LONGEST = 0.75
"""How much of a group's longest prompt the others have at least."""


@dataclass(frozen=True)
class _Encoded:
    batch: EncodedBatch
    seconds: float


class DecodingEngine:
    """Runs batches that mix domains: slot i of the executor's weights belongs to trie i of the arena."""

    def __init__(
        self, executor: Executor, arena: TrieArena, *, certified_beam_limit: int = CERTIFIED_BEAM_LIMIT
    ) -> None:
        self._executor = executor
        self._arena = arena
        self._device = executor.device
        self._certified_beam_limit = certified_beam_limit

    @property
    def num_slots(self) -> int:
        return self._executor.num_slots

    def place(self, slot: int, placement: Placement) -> None:
        self._executor.place(slot, placement)
        self._arena = self._arena.with_trie(slot, placement.trie)

    def vacate(self, slot: int) -> None:
        self._arena = self._arena.with_trie(slot, NO_ITEMS)

    def rank(self, batch: Sequence[RankingWork]) -> tuple[list[Ranking], Timings]:
        """Rank, then widen the beams of those that asked for certainty until all their items are proven."""
        rankings, timings = self.search(batch)
        started = time.perf_counter()
        with self._executor.computing():
            rankings = [self._certify(work, ranking) for work, ranking in zip(batch, rankings, strict=True)]
        return rankings, Timings(timings.encode_s, timings.decode_s + time.perf_counter() - started)

    def search(self, batch: Sequence[RankingWork]) -> tuple[list[Ranking], Timings]:
        rankings: dict[int, Ranking] = {}
        encode_s = decode_s = 0.0
        with self._executor.computing():
            for group in self._groups([work.source.prompt.num_tokens for work in batch]):
                encoded = self._encode([batch[place].source for place in group])
                started = time.perf_counter()
                found = self._search(encoded, [batch[place] for place in group])
                rankings.update(zip(group, found, strict=True))
                encode_s += encoded.seconds
                decode_s += time.perf_counter() - started
        return [rankings[place] for place in range(len(batch))], Timings(encode_s=encode_s, decode_s=decode_s)

    def widened(self, work: RankingWork, ranking: Ranking) -> RankingWork | None:
        """At most as wide as the limit, the trie's widest level, or what was asked for."""
        return widened_work(work, ranking, self._arena.tries[work.source.slot], self._certified_beam_limit)

    def score(self, batch: Sequence[ScoringWork]) -> tuple[list[tuple[float, ...]], Timings]:
        """Teacher-force every target over its prompt's one encoding."""
        if not batch:
            return [], Timings(encode_s=0.0, decode_s=0.0)
        with self._executor.computing():
            encoded = self._encode([work.source for work in batch])
            started = time.perf_counter()
            most = max(len(work.targets) for work in batch)
            scores = [
                self._target_scores(encoded, [work.targets[min(number, len(work.targets) - 1)] for work in batch])
                for number in range(most)
            ]
        by_work = [tuple(row[: len(work.targets)]) for row, work in zip(zip(*scores, strict=True), batch, strict=True)]
        return by_work, Timings(encode_s=encoded.seconds, decode_s=time.perf_counter() - started)

    def generate(
        self, batch: Sequence[TextWork], on_token: OnToken | None = None
    ) -> tuple[list[GeneratedText], Timings]:
        """One-beam texts run together, those with several beams in turn."""
        started = time.perf_counter()
        session = self.open_texts(len(batch))
        position_of = {row: position for position, row in enumerate(session.admit(batch))}
        encoded = time.perf_counter()
        texts: dict[int, GeneratedText] = {}
        while len(texts) < len(batch):
            for each in session.step():
                if each.failure is not None:
                    raise each.failure
                position, text = position_of[each.row], each.finished
                is_wanted = on_token is None or each.token_id is None or on_token(position, each.token_id)
                if text is None and not is_wanted:
                    text = session.cancel(each.row)
                if text is not None:
                    texts[position] = text
        timings = Timings(encode_s=encoded - started, decode_s=time.perf_counter() - encoded)
        return [texts[position] for position in range(len(batch))], timings

    def open_texts(self, num_rows: int) -> TextSession:
        return DecodingTextSession(self._executor, num_rows, SPECIAL)

    def _groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Places of a batch that are searched together: on a CPU, to which padding is work, those of like length."""
        order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
        if self._device.type != "cpu":
            return [order] if order else []
        groups: list[list[int]] = []
        for place in order:
            if groups and lengths[place] >= LEAST_OF_LONGEST * lengths[groups[-1][0]]:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def _encode(self, sources: Sequence[EncoderInput]) -> _Encoded:
        started = time.perf_counter()
        return _Encoded(batch=self._executor.encode(sources), seconds=time.perf_counter() - started)

    def _search(self, encoded: _Encoded, batch: Sequence[RankingWork]) -> list[Ranking]:
        num_beams = max(work.num_beams for work in batch)
        domains = tuple(work.source.slot for work in batch)
        arena = self._arena
        depths = [arena.tries[domain].depth for domain in domains]
        stepper = encoded.batch.stepper(num_beams=num_beams, max_length=max(depths))
        rows = ItemRows(
            roots=self._column([arena.roots[domain] for domain in domains]),
            eligibility=BatchEligibility.of([work.eligibility for work in batch], self._device),
            beams_of_rows=self._column([work.num_beams for work in batch]),
            wanted=self._column([min(work.k, work.num_beams) for work in batch]),
            length_penalty=self._column([work.length_penalty for work in batch]),
            depths=self._column(depths),
        )
        search = ItemSearch(
            nodes=arena.nodes,
            rows=rows,
            num_beams=num_beams,
            most_children=arena.most_children(domains, num_beams),
            special=SPECIAL,
        )
        beams = search_items(search, stepper, drops_hopeless=self._device.type == "cpu")
        return rankings_of(beams, batch)

    def _certify(self, work: RankingWork, ranking: Ranking) -> Ranking:
        """Search again with wider beams until all items are proven or the limit is reached."""
        encoded: _Encoded | None = None
        while (wider := self.widened(work, ranking)) is not None:
            encoded = encoded or self._encode([work.source])
            (ranking,) = self._search(encoded, [wider])
        return ranking

    def _target_scores(self, encoded: _Encoded, targets: Sequence[tuple[int, ...]]) -> list[float]:
        """Log-probability of one target per row."""
        longest = max(len(target) for target in targets)
        ids = torch.tensor([[*target, *[EOS_ID] * (longest - len(target))] for target in targets], device=self._device)
        is_token = torch.tensor([[place < len(target) for place in range(longest)] for target in targets])
        log_probs = encoded.batch.decode(ids).log_softmax(-1)
        chosen = log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1) * is_token.to(self._device)
        return [float(total) for total in chosen.sum(1).tolist()]

    def _column(self, values: Sequence[int] | Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device).unsqueeze(1)
