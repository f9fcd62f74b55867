"""Does attribution name the purchase whose look the recommendation follows, and what does it cost?

Question  Does the item of the history that is named first share the look that the simulation lets customers follow (two
          of colour, pattern and style; `demo/people.py`) with the recommendation more often than a random item of the
          history? How often is it a picture? How many milliseconds does attribution add?
Method    Held-out customers of the demonstration, whose three purchases are the history. For each of the three best
          items: whether the item named first shares the look, or one trait, minus the share of the history's items that
          do; only histories that decide something count, in which some items share it and others do not. Intervals:
          95 % of 1,000 bootstrap samples of the customers. Cost: the same request with and without `attribution`,
          interleaved, for k = 10 and growing histories.
Output    A line per domain and per length of the history; the last line is JSON.

    python -m benchmarks.attribution [--customers 300] [--requests 15] [--threads 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu_engine import ROOT
from model.bundle.catalog import Catalog
from model.datasets.dataset import Dataset
from service.answering.answers import Recommendation
from service.answering.parts import Service
from service.answering.service import open_service
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.schemas.ranking import SequentialRequest
from service.settings import Settings

DEMO = ROOT / "demo"
TRAITS = ("colour", "pattern", "style")
NUM_FOLLOWED = 2
LOOK = "look"
TOP = 3
ALL_REASONS = 100
LENGTHS = (3, 10, 20, 50)
COST_K = 10
NUM_SAMPLES = 1_000
SEED = 5


async def ask(service: Service, request: SequentialRequest) -> tuple[Recommendation, float]:
    """The answer, and its milliseconds."""
    started_at = time.perf_counter()
    trace = RequestTrace(request_id="benchmark")
    try:
        return await service.recommender.recommend(request, trace), (time.perf_counter() - started_at) * 1000
    finally:
        trace.end()


def histories(domain: str, num_customers: int) -> list[tuple[str, list[str]]]:
    """Held-out customers with their purchases."""
    dataset = Dataset.read(DEMO / "bundle-held-out" / domain)
    ids = dataset.catalog.item_ids
    users, _ = dataset.users.search("", 0, num_customers)
    return [(user.user_id, [ids[item] for item in dataset.sequences.of(row)]) for row, user in enumerate(users)]


def shared(catalog: Catalog, first: str, second: str) -> dict[str, bool]:
    """Which traits two items share, and whether it is enough of them to be the look that customers follow."""
    looks = [catalog.attributes(row) for each in (first, second) if (row := catalog.row_of(each)) is not None]
    traits = {trait: looks[0][trait] == looks[1][trait] for trait in TRAITS}
    return traits | {LOOK: sum(traits.values()) >= NUM_FOLLOWED}


def judged(catalog: Catalog, answer: Recommendation, history: Sequence[str], what: str) -> NDArray[np.float64]:
    """For each recommendation that decides something: whether the item named first is right, and the share that is."""
    found = []
    for item in answer.items:
        is_right = [shared(catalog, each, item.item_id)[what] for each in dict.fromkeys(history)]
        if item.because and any(is_right) and not all(is_right):
            named = shared(catalog, item.because[0].item_id, item.item_id)[what]
            found.append((float(named), sum(is_right) / len(is_right)))
    return np.array(found).reshape(-1, 2)


def interval(by_customer: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """95 % of the mean differences of bootstrap samples of the customers."""
    chance = np.random.default_rng(SEED)
    sums = np.array([(each[:, 0] - each[:, 1]).sum() for each in by_customer])
    counts = np.array([len(each) for each in by_customer])
    drawn = chance.integers(0, len(sums), (NUM_SAMPLES, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


async def compare(service: Service, domain: str, num_customers: int) -> dict[str, object]:
    catalog = service.domains.domain(domain).catalog
    answers = []
    for user_id, history in histories(domain, num_customers):
        body = {"domain": domain, "user_id": user_id, "history": history, "k": TOP, "attribution": ALL_REASONS}
        answer, _ = await ask(service, SequentialRequest.model_validate(body))
        answers.append((answer, history))
    firsts = [item.because[0].part for answer, _ in answers for item in answer.items if item.because]
    pictures = firsts.count("image") / len(firsts)
    print(f"{domain}: {len(answers)} customers; a picture is named first in {pictures:.3f}")
    figures: dict[str, object] = {"domain": domain, "customers": len(answers), "pictures": pictures}
    for what in (LOOK, *TRAITS):
        by_customer = [each for answer, history in answers if len(each := judged(catalog, answer, history, what))]
        every = np.concatenate(by_customer)
        named, chosen = every.mean(0).tolist()
        low, high = interval(by_customer)
        print(
            f"  {what}: shared by the item named first in {named:.3f}, by a random one in {chosen:.3f}; difference "
            f"{named - chosen:.3f} ({low:.3f} to {high:.3f}), {len(every)} recommendations"
        )
        figures[what] = {"named": named, "random": chosen, "low": low, "high": high, "num": len(every)}
    return figures


async def cost(service: Service, length: int, num_requests: int) -> dict[str, float]:
    ids = service.domains.domain("toys").catalog.item_ids
    body = {"domain": "toys", "history": list(ids[:length]), "k": COST_K}
    requests = [SequentialRequest.model_validate(body | more) for more in ({}, {"attribution": 3})]
    times: list[list[float]] = [[], []]
    for number in range(num_requests + 1):
        for place, request in enumerate(requests):
            _, duration_ms = await ask(service, request)
            if number:  # the first warms up
                times[place].append(duration_ms)
    plain, with_reasons = (median(each) for each in times)
    print(f"{length} items: plain {plain:.0f} ms, with reasons {with_reasons:.0f} ms (medians of {num_requests})")
    return {"length": length, "plain_ms": plain, "with_reasons_ms": with_reasons}


async def measure(settings: Settings, num_customers: int, num_requests: int) -> None:
    async with open_service(settings, Metrics(), Liveness(settings.stall_s)) as service:
        shares = [await compare(service, domain, num_customers) for domain in ("toys", "garments")]
        costs = [await cost(service, length, num_requests) for length in LENGTHS]
    print(json.dumps({"shares": shares, "costs": costs}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=300)
    parser.add_argument("--requests", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    settings = Settings(bundle=Path(DEMO / "bundle"), num_threads=given.threads)
    asyncio.run(measure(settings, given.customers, given.requests))


if __name__ == "__main__":
    main()
