"""Sends chains of requests, in which answers bring what later requests need, and says what went wrong.

    python -m tests.fuzz.chains [--seed 1] [--examples 5000] [--steps 10] [--minutes 60]

The chains follow the links of `tests.fuzz.links` and those that schemathesis infers: versions are loaded, tried on some
users, swapped and rolled back, items go out of stock, embeddings change, and recommendations are asked for in between.
Faults are those of `tests.fuzz.bodies`. Prints a line of JSON for every 20 chains, with the sums since the start.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import httpx
import hypothesis
import schemathesis
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.generation.stateful.state_machine import APIStateMachine
from schemathesis.schemas import BaseSchema

from tests.fuzz.bodies import LEFT_OUT, SEEDS, name_of, report
from tests.fuzz.known import DOMAIN, Body, complete
from tests.fuzz.links import add_links
from tests.fuzz.service import CHECKS, Case, Found, Shop, shop

TURN = 20
NAMED = 0.9
"""Share of the requests for a domain that name one that is served."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=5_000)
    parser.add_argument("--steps", type=int, default=10, help="most requests of a chain")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    ends_at = time.monotonic() + options.minutes * 60
    with shop() as place:
        found, tried = Found("chains", options.seed), Counter[str]()
        machine = chain_at(place, linked_schema(place).as_state_machine(), tried)
        for turn, first in enumerate(range(0, options.examples, TURN)):
            if time.monotonic() > ends_at or place.has_ended:
                break
            count = min(TURN, options.examples - first)
            found.fault += fuzz(machine, options.seed * SEEDS + turn, count, options.steps)
            report(place, found)
        sys.stdout.write(f"{dict(tried.most_common())}\n")
    return 0 if found.is_clean else 1


def linked_schema(place: Shop) -> BaseSchema:
    document: dict[str, Any] = httpx.get(f"{place.server.url}/openapi.json").json()
    add_links(document)
    config = SchemathesisConfig.from_dict({"base-url": place.server.url, "generation": {"mode": "positive"}})
    return schemathesis.openapi.from_dict(document, config=config).exclude(operation_id=sorted(LEFT_OUT))


def fuzz(machine: type[APIStateMachine], seed: int, num_chains: int, num_steps: int) -> str:
    """Send chains of requests; returns the first fault, or nothing."""
    settings = hypothesis.settings(
        max_examples=num_chains,
        stateful_step_count=num_steps,
        phases=[hypothesis.Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    try:
        hypothesis.seed(seed)(machine).run(settings=settings)
    except KeyboardInterrupt:
        raise
    except FlakyStrategyDefinition:  # what came before has left its mark on the service; the next turn begins anew
        return ""
    except BaseException:  # noqa: BLE001 - a fault of any kind; schemathesis's group of failures is no Exception
        return traceback.format_exc()
    return ""


def chain_at(place: Shop, linked: type[APIStateMachine], tried: Counter[str]) -> type[APIStateMachine]:
    """Chains of requests to this service; counts answers by operation and status in `tried`."""

    class Chain(linked):  # type: ignore[misc, valid-type]  # a class that is made from the document
        def setup(self) -> None:
            place.reset()
            self.versions: list[str] = []

        def before_call(self, case: Case) -> None:
            if "name" in case.path_parameters and Random(str(case.path_parameters)).random() < NAMED:
                case.path_parameters["name"] = DOMAIN
            if isinstance(case.body, dict):
                answered = _from_answers(case.body)
                complete(name_of(case.operation), case.body)
                case.body |= answered
                _name_a_version(case.body, self.versions)

        def call(self, case: Case, **kwargs: object) -> Response:
            response = place.caller.send(case)
            tried[f"{name_of(case.operation)} {response.status_code}"] += 1
            if response.status_code == 200 and b'"versions":' in response.content:
                found = response.json()
                self.versions = [each["version"] for each in found.get("versions", [])] or self.versions
            return response

        def validate_response(self, response: Response, case: Case, **kwargs: object) -> None:
            case.validate_response(response, checks=CHECKS)

    return Chain


def _from_answers(body: Body) -> Body:
    """Fields that may come from answers, and stay as they are."""
    found: Body = {}
    if str(body.get("item_id")).startswith("item-"):
        found["item_id"] = body["item_id"]
    if isinstance(body.get("expected_revision"), int):
        found["expected_revision"] = body["expected_revision"]
    return found


def _name_a_version(body: Body, versions: Sequence[str]) -> None:
    """Mostly replace a version that does not exist by one that did a moment ago."""
    version = body.get("version")
    if isinstance(version, str) and versions and version not in versions:
        chance = Random(version)
        if chance.random() < NAMED:
            body["version"] = chance.choice(versions)


if __name__ == "__main__":
    sys.exit(main())
