"""Times of a bundle's engine by batch shape, and times and recall by beam width, for `vip5 bench`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from model.engine.captured.buckets import Bucket, Ladder
from model.engine.plans import RankingPlan
from model.engine.protocol import Engine, Ranking
from model.errors import EngineError, InputError
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.progress import Progress

_MANY_TOKENS = 256  # longer prompts may have more items than fit into a short list of exclusions
_LONGEST_HISTORY = 400


@dataclass(frozen=True)
class BenchOptions:
    """What to measure."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    beams: tuple[int, ...]  # ascending; the last is the reference for recall
    num_beams: int  # for the measurements by rows and tokens
    k: int
    num_requests: int  # distinct requests of each length
    repeats: int


@dataclass(frozen=True)
class ShapeTime:
    """Times of batches of `num_rows` requests with prompts of at most `num_tokens` tokens."""

    num_rows: int
    num_tokens: int
    latency_ms: float  # median
    p95_ms: float
    requests_per_s: float


@dataclass(frozen=True)
class BeamTime:
    """Time and recall of single requests with `num_beams` beams."""

    num_beams: int
    latency_ms: float  # median
    recall: float  # share of the widest search's best 10 that are found
    share_exact: float  # share of answers that are proven to be the true top


@dataclass(frozen=True)
class Measurements:
    """Times by shape, ordered by tokens and rows, and by beam width, ascending."""

    shapes: tuple[ShapeTime, ...]
    beams: tuple[BeamTime, ...]
    is_mixed: bool

    @property
    def best(self) -> ShapeTime:
        """The shape with the highest throughput."""
        return max(self.shapes, key=lambda each: each.requests_per_s)

    def to_json(self, num_beams: int) -> dict[str, object]:
        """The content of `vip5 bench --out`: buckets to capture, largest first, and the beam table."""
        buckets = [
            Bucket(each.num_rows, each.num_tokens, num_beams, _listed(each), self.is_mixed and each.num_rows > 1)
            for each in self.shapes
        ]
        return {
            "buckets": [each.to_json() for each in sorted(buckets, key=lambda bucket: -bucket.cost)],
            "best": asdict(self.best),
            "beams": [asdict(each) for each in self.beams],
            "shapes": [asdict(each) for each in self.shapes],
        }


def _listed(shape: ShapeTime) -> int:
    short, long = Ladder().listed
    return short if shape.num_tokens <= _MANY_TOKENS else long


def measure(engine: Engine, domains: Sequence[ServedDomain], options: BenchOptions, progress: Progress) -> Measurements:
    """Time searches for random histories from the domains' catalogs; image embeddings are zeros."""
    requests = {tokens: _plans(domains, tokens, options) for tokens in options.tokens}
    steps = len(options.rows) * len(options.tokens) + len(options.beams)
    done = iter(range(1, steps + 1))
    shapes = []
    for tokens, plans in requests.items():
        for rows in options.rows:
            shapes.append(_shape_time(engine, plans, rows, tokens, options.repeats))
            progress(f"{rows} x {tokens}", next(done), steps)
    usual = requests[options.tokens[len(options.tokens) // 2]]
    widest = _answers(engine, usual, options.beams[-1])
    beams = []
    for num_beams in options.beams:
        beams.append(_beam_time(engine, usual, num_beams, widest))
        progress(f"{num_beams} beams", next(done), steps)
    return Measurements(tuple(shapes), tuple(beams), is_mixed=len(domains) > 1)


def _shape_time(engine: Engine, plans: Sequence[RankingPlan], rows: int, tokens: int, repeats: int) -> ShapeTime:
    batches = [_batch(plans, rows, turn) for turn in range(repeats)]
    engine.search(batches[0])
    seconds = [_timed(engine, batch)[0] for batch in batches]
    median, p95 = np.percentile(seconds, [50, 95])
    return ShapeTime(rows, tokens, round(1e3 * float(median), 3), round(1e3 * float(p95), 3), round(rows / median, 1))


def _beam_time(
    engine: Engine, plans: Sequence[RankingPlan], num_beams: int, widest: Sequence[frozenset[int]]
) -> BeamTime:
    wide = [replace(plan, num_beams=num_beams) for plan in plans]
    engine.search(wide[:1])
    timed = [_timed(engine, [plan]) for plan in wide]
    recalls = [
        len(best & set(ranking.leaves[:10].tolist())) / max(len(best), 1)
        for (_, (ranking,)), best in zip(timed, widest, strict=True)
    ]
    exact = [ranking.exact_prefix == len(ranking.leaves) for _, (ranking,) in timed]
    return BeamTime(
        num_beams=num_beams,
        latency_ms=round(1e3 * float(np.median([seconds for seconds, _ in timed])), 3),
        recall=round(float(np.mean(recalls)), 4),
        share_exact=round(float(np.mean(exact)), 4),
    )


def _answers(engine: Engine, plans: Sequence[RankingPlan], num_beams: int) -> list[frozenset[int]]:
    return [frozenset(engine.search([replace(plan, num_beams=num_beams)])[0][0].leaves[:10].tolist()) for plan in plans]


def _timed(engine: Engine, batch: Sequence[RankingPlan]) -> tuple[float, list[Ranking]]:
    started = time.perf_counter()
    rankings, _ = engine.search(batch)
    return time.perf_counter() - started, rankings


def _batch(plans: Sequence[RankingPlan], rows: int, turn: int) -> list[RankingPlan]:
    return [plans[(turn * rows + row) % len(plans)] for row in range(rows)]


def _plans(domains: Sequence[ServedDomain], tokens: int, options: BenchOptions) -> list[RankingPlan]:
    """The longest prompts of at most `tokens` tokens, from the domains in turn."""
    generator = np.random.default_rng(tokens)
    chosen = [domains[number % len(domains)] for number in range(options.num_requests)]
    return [_longest(domain, tokens, options, generator) for domain in chosen]


def _longest(domain: ServedDomain, tokens: int, options: BenchOptions, generator: np.random.Generator) -> RankingPlan:
    """As many items of a random history as fit."""
    rows = generator.integers(0, len(domain.catalog), _LONGEST_HISTORY)
    found: RankingPlan | None = None
    length = 1
    while (plan := _plan(domain, rows[:length].tolist(), options)).longest <= tokens:
        found = plan
        if plan.prompt.is_truncated or length == _LONGEST_HISTORY:
            break
        length += 1
    if found is None:
        raise InputError(
            f"no prompt of {domain.name} has {tokens} tokens or fewer, one item takes {plan.longest}; "
            "give larger --tokens"
        )
    return found


def _plan(domain: ServedDomain, rows: Sequence[int], options: BenchOptions) -> RankingPlan:
    history = tuple(domain.catalog.item_ids[row] for row in rows)
    query = OfflineSequential(history=history, k=options.k, num_beams=options.num_beams)
    plan = plan_sequential(domain, query)
    if not isinstance(plan, RankingPlan):
        raise EngineError(
            f"the default template of {domain.name} asks yes or no, but only rankings can be measured; choose a domain "
            "whose default template ranks items"
        )
    return plan
