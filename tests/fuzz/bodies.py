"""Sends random requests to every route of a running service, made from its OpenAPI document, and says what went wrong.

    python -m tests.fuzz.bodies [OPERATION …] [--seed 1] [--examples 5000] [--minutes 90]

Half of the requests to most routes name what the service knows, so that they reach the engine or change what is served;
the others break a rule or not, as schemathesis likes. A status of 5xx, an answer that is not as the document says,
invalid data that is accepted, a request of more than 2 s of the service's processor time, an error in its log and its
end are faults. All routes take turns of 500 requests, so that each got its share when the time is over. Prints a line
of JSON for each turn, with the sums since the start, and exits with 1 if there was a fault. `drain` is left out, since
it ends the service. `tests.fuzz.chains` sends requests that depend on each other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import hypothesis
import schemathesis
from fastapi import FastAPI
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.python import asgi
from schemathesis.schemas import APIOperation, BaseSchema

from tests.fuzz.known import DOMAIN, complete
from tests.fuzz.service import Caller, Case, Found, Shop, shop

Operation: TypeAlias = APIOperation[Any, Any, Any, Any]
LEFT_OUT = {"drain"}
DISRUPTIVE = {"unload_domain"}
"""Their requests never name what is served, since the others could not do so afterwards."""
TURN = 500
SEEDS = 1_000
"""Turns of one seed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="OPERATION", help="such as recommend_sequential (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=5_000)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    ends_at = time.monotonic() + options.minutes * 60
    with shop() as place:
        operations = {name_of(each): each for each in operations_in(schema_of(place))}
        names = options.names or sorted(operations.keys() - LEFT_OUT)
        found = {name: Found(name, options.seed) for name in names}
        for turn, first in enumerate(range(0, options.examples, TURN)):
            for name in names:
                if time.monotonic() > ends_at or place.has_ended:
                    break
                count = min(TURN, options.examples - first)
                found[name].fault += fuzz(operations[name], options.seed * SEEDS + turn, count, place.caller)
                report(place, found[name])
                if not place.has_ended:
                    place.restore()
    return 0 if all(each.is_clean for each in found.values()) else 1


def report(place: Shop, found: Found) -> None:
    """Add what the service and its caller say, and print it."""
    found.add(place)
    sys.stdout.write(f"{json.dumps(found.__dict__)}\n")
    sys.stdout.flush()


def fuzz(operation: Operation, seed: int, num_examples: int, caller: Caller) -> str:
    """Send requests, which the caller counts; returns the first fault, or nothing."""
    name = name_of(operation)
    has_known = bool(operation.body or operation.path_parameters) and name not in DISRUPTIVE

    def send_known(case: Case) -> None:
        if "name" in case.path_parameters:
            case.path_parameters["name"] = DOMAIN
        complete(name, case.body)
        caller.send_and_check(case)

    try:
        if has_known:
            num_examples //= 2
            _run(operation, send_known, seed, num_examples, generation_mode=GenerationMode.POSITIVE)
        _run(operation, caller.send_and_check, seed, num_examples)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a fault of any kind; schemathesis's group of failures is no Exception
        return traceback.format_exc()
    return ""


def name_of(operation: Operation) -> str:
    return str(operation.definition.raw["operationId"])


def schema_of(place: Shop) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{place.server.url}/openapi.json")


def operations_in(schema: BaseSchema) -> list[Operation]:
    return [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]


def operations_of(app: FastAPI) -> list[Operation]:
    """All operations of an app, which is started in this process."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    with asgi.get_client(cast("asgi.ASGIApp", app)) as client:
        while client.get("http://testserver/health/ready").status_code != 200:
            pass
    return operations_in(schema)


def _run(
    operation: Operation, send: Callable[[Case], None], seed: int, num_examples: int, **modes: GenerationMode
) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=num_examples,
        phases=[hypothesis.Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(**cast("Mapping[str, Any]", modes)))
    def check(case: Case) -> None:
        send(case)

    check()


if __name__ == "__main__":
    sys.exit(main())
