"""Does attribution name the purchase whose look the recommendation follows, and what does it cost?

Question  Does the item of the history that is named first share the look that the simulation lets customers follow (two
          of colour, pattern and style; `demo/people.py`) with the recommendation more often than a random item of the
          history? How often is it a picture? How many milliseconds does attribution add? How long does a plain request
          wait for the part of an attribution that runs when it comes?
Method    Held-out customers of the demonstration, whose three purchases are the history. For each of the three best
          items: whether the item named first shares the look, or one trait, minus the share of the history's items that
          do; only histories that decide something count, in which some items share it and others do not. Intervals:
          95 % of 1,000 bootstrap samples of the customers. Cost: the same request with and without `attribution`,
          interleaved, for k = 10 and growing histories; time, and processor time of the whole process. Waits: plain
          requests one after another, with a pause of random length before each, while several clients ask for
          attributions without a pause; and the same without them.
Output    A line per domain, per length of the history and per number of clients; the last line is JSON.

    python -m benchmarks.attribution [--customers 300] [--requests 15] [--waits 60] [--threads 1]
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
from service.settings.settings import Settings

DEMO = ROOT / "demo"
TRAITS = ("colour", "pattern", "style")
NUM_FOLLOWED = 2
LOOK = "look"
TOP = 3
ALL_REASONS = 100
LENGTHS = (3, 10, 20, 50)
COST_K = 10
WAIT_LENGTH = 20
NUM_ASKING = (0, 1, 4)
LONGEST_PAUSE_S = 0.1
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
    cpu: list[list[float]] = [[], []]
    for number in range(num_requests + 1):
        for place, request in enumerate(requests):
            cpu_s = time.process_time()
            _, duration_ms = await ask(service, request)
            if number:  # the first warms up
                times[place].append(duration_ms)
                cpu[place].append((time.process_time() - cpu_s) * 1000)
    plain, with_reasons = (median(each) for each in times)
    plain_cpu, with_reasons_cpu = (median(each) for each in cpu)
    print(
        f"{length} items: plain {plain:.0f} ms, with reasons {with_reasons:.0f} ms; processor time {plain_cpu:.0f} and "
        f"{with_reasons_cpu:.0f} ms (medians of {num_requests})"
    )
    cpu_ms = {"plain_cpu_ms": plain_cpu, "with_reasons_cpu_ms": with_reasons_cpu}
    return {"length": length, "plain_ms": plain, "with_reasons_ms": with_reasons} | cpu_ms


async def waits(service: Service, num_asking: int, num_requests: int) -> dict[str, float]:
    """How long plain requests wait in the queue while `num_asking` clients ask for attributions."""
    ids = service.domains.domain("toys").catalog.item_ids
    plain = SequentialRequest.model_validate({"domain": "toys", "history": list(ids[:3]), "timings": True})
    body = {"domain": "toys", "history": list(ids[:WAIT_LENGTH]), "k": COST_K, "attribution": 3, "timings": True}
    answered: list[Recommendation] = []

    async def keep_asking(history: list[str]) -> None:
        while True:
            answer, _ = await ask(service, SequentialRequest.model_validate(body | {"history": history}))
            answered.append(answer)

    asking = [asyncio.create_task(keep_asking(list(ids[n : n + WAIT_LENGTH]))) for n in range(num_asking)]
    pauses = np.random.default_rng(SEED).uniform(0, LONGEST_PAUSE_S, num_requests)
    found = []
    for pause_s in pauses.tolist():
        await asyncio.sleep(pause_s)
        answer, _ = await ask(service, plain)
        assert answer.timings_ms is not None
        found.append(answer.timings_ms["queue"])
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    p50, p99, most = np.percentile(found, [50, 99, 100]).tolist()
    lacking = sum(not each.items[0].because for each in answered)
    print(
        f"{num_asking} clients ask for reasons ({len(answered)} answers, {lacking} without): a plain request waits "
        f"{p50:.1f} ms (median), {p99:.1f} ms (p99), {most:.1f} ms (longest of {num_requests})"
    )
    return {"asking": num_asking, "p50_ms": p50, "p99_ms": p99, "max_ms": most, "answered": len(answered)}


async def measure(settings: Settings, num_customers: int, num_requests: int, num_waits: int) -> None:
    async with open_service(settings, Metrics(), Liveness(settings.stall_s)) as service:
        domains = ("toys", "garments") if num_customers else ()
        shares = [await compare(service, domain, num_customers) for domain in domains]
        costs = [await cost(service, length, num_requests) for length in LENGTHS]
        waiting = [await waits(service, num_asking, num_waits) for num_asking in NUM_ASKING]
    print(json.dumps({"shares": shares, "costs": costs, "waits": waiting}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=300, help="of each domain; 0 for costs and waits only")
    parser.add_argument("--requests", type=int, default=15)
    parser.add_argument("--waits", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    settings = Settings(bundle=Path(DEMO / "bundle"), num_threads=given.threads)
    asyncio.run(measure(settings, given.customers, given.requests, given.waits))


if __name__ == "__main__":
    main()
