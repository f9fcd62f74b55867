"""Sends random requests to every route of the service, made from its OpenAPI document, and says what went wrong.

    python -m tests.fuzz.bodies [OPERATION …] [--seed 1] [--examples 5000]

Half of the requests for a domain or its versions keep to the document and name what the bundle knows, so that they
reach the engine; the others break a rule or not, as schemathesis likes. A status of 5xx, an answer that is not as the
document says, invalid data that is accepted, and a request of more than 2 s of the process's time are faults. Prints a
line of JSON for each operation, and exits with 1 if there was a fault. `drain` is left out, since it ends the service.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import hypothesis
import schemathesis
from fastapi import FastAPI
from pydantic import SecretStr
from schemathesis import Case as AnyCase
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.python import asgi
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from model.prompts.templates import TEMPLATES
from service.http.app import create_app
from service.settings import Settings
from tests.fuzz.worker import MAX_SECONDS, resident_bytes
from tests.tiny import tiny_bundle

Case: TypeAlias = AnyCase[Any]
Operation: TypeAlias = APIOperation[Any, Any, Any, Any]
TOKEN = "open-sesame-open-sesame"
READERS = {"/recommend/sequential", "/recommend/direct", "/explain"}
LEFT_OUT = {"drain"}
UNLOAD = "unload_domain"
"""Comes last, since what it unloads is unknown afterwards."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    allow_header_conformance,
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="OPERATION", help="such as recommend_sequential (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=5_000)
    options = parser.parse_args()
    logging.disable()
    is_clean = True
    with tempfile.TemporaryDirectory() as folder:
        root = tiny_bundle(Path(folder), num_items=40)
        settings = Settings(bundle=root, bundles_root=Path(folder), admin_token=SecretStr(TOKEN), num_threads=1)
        operations = {str(each.definition.raw["operationId"]): each for each in operations_of(create_app(settings))}
        for name in sorted(operations.keys() - LEFT_OUT, key=lambda name: (name == UNLOAD, name)):
            operation = operations[name]
            if name in (options.names or [name]):
                found = fuzz(operation, name, options.seed, options.examples)
                sys.stdout.write(f"{json.dumps(found)}\n")
                sys.stdout.flush()
                is_clean = is_clean and not (found["fault"] or found["hangs"])
    return 0 if is_clean else 1


def fuzz(operation: Operation, name: str, seed: int, num_examples: int) -> dict[str, object]:
    """Statuses by number, the slowest request, growth of memory and the first fault."""
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    start_bytes = resident_bytes()

    def send(case: Case) -> None:
        before = time.process_time()
        response = case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {TOKEN}"})
        seconds.append(time.process_time() - before)
        statuses[response.status_code] += 1

    def send_known(case: Case) -> None:
        if operation.path in READERS:
            assert isinstance(case.body, dict)
            name_what_is_known(case.body, "toys", ["item-1", "item-2", "item-3"])
        else:
            case.path_parameters["name"] = "toys"
        send(case)

    fault = ""
    try:
        if operation.path in READERS or ("{name}" in operation.path and name != UNLOAD):
            num_examples //= 2
            _run(operation, send_known, seed, num_examples, generation_mode=GenerationMode.POSITIVE)
        _run(operation, send, seed, num_examples)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a fault of any kind; schemathesis's group of failures is no Exception
        fault = traceback.format_exc()
    gc.collect()
    return {
        "operation": name,
        "seed": seed,
        "requests": sum(statuses.values()),
        "statuses": dict(sorted(statuses.items())),
        "hangs": sum(each > MAX_SECONDS for each in seconds),
        "slowest_s": round(max(seconds, default=0.0), 3),
        "grown_mib": round((resident_bytes() - start_bytes) / (1 << 20), 1),
        "fault": fault,
    }


def operations_of(app: FastAPI) -> list[Operation]:
    """All operations of an app, which is started."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    with asgi.get_client(cast("asgi.ASGIApp", app)) as client:
        while client.get("http://testserver/health/ready").status_code != 200:
            pass
    return [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]


def name_what_is_known(body: dict[str, Any], domain: str, item_ids: list[str]) -> None:
    """Put names that the bundle knows beside random ones, so that the request reaches the engine."""
    body["domain"] = domain
    for name in ("history", "candidates", "include_items"):
        if isinstance(body.get(name), list):
            body[name] = [*body[name][:50], *item_ids[:2]]
    if "item_id" in body:
        body["item_id"] = item_ids[2]
    if "template" in body and body["template"] not in TEMPLATES:
        del body["template"]
    if body.get("deadline_ms") is not None:
        body["deadline_ms"] = 60_000  # a short one may rightly pass
    if isinstance(body.get("where"), dict):
        body["where"] = {"category": "games"}


def _run(
    operation: Operation, send: Callable[[Case], None], seed: int, num_examples: int, **modes: GenerationMode
) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=num_examples,
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
