"""Asks a running service for recommendations: one, many at once, from stored events, and an explanation by tokens.

    pip install httpx
    python examples/clients/client.py http://127.0.0.1:8000

The items are those of the demonstration (`make run`). Where API keys are required, set API_KEY. `client.ts` does the
same in TypeScript. Events need a service that keeps histories, such as with VIP5_HISTORY_STORE=embedded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx

MAX_ATTEMPTS = 5
PATIENCE_S = 60.0
BUSY = (429, 503)
"""Statuses after which the same request may succeed, as long after as Retry-After says."""

USER: dict[str, Any] = {"domain": "toys", "user_id": "user-30001"}
ASK: dict[str, Any] = {**USER, "k": 2}
HISTORY = ["toy-0152", "toy-0098", "toy-0025"]


def connected(url: str) -> httpx.Client:
    """A client that keeps its connections, which spares the service and you the time to open them."""
    key = os.environ.get("API_KEY")
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S)


def post(client: httpx.Client, path: str, body: object) -> dict[str, Any]:
    """The answer. A busy service is asked again when it says. Raises RuntimeError with the problem document."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        response = client.post(path, json=body)
        if response.status_code not in BUSY or attempt == MAX_ATTEMPTS or not wait(response):
            break
    answer: dict[str, Any] = response.json()
    if response.is_error:
        raise RuntimeError(f"{answer['code']}: {answer['detail']} (request {answer['request_id']})")
    return answer


def wait(response: httpx.Response) -> bool:
    """Wait as long as the service asks for; False if it does not say, or for longer than we have patience."""
    after_s = float(response.headers.get("Retry-After", "inf"))
    if after_s > PATIENCE_S:
        return False
    print(json.dumps({"retry_after_s": after_s}), flush=True)
    time.sleep(after_s)
    return True


def recommend(client: httpx.Client) -> list[str]:
    """The next items for one history, best first."""
    answer = post(client, "/recommend/sequential", {**ASK, "history": HISTORY})
    return [item["item_id"] for item in answer["items"]]


def recommend_many(client: httpx.Client, histories: list[list[str]]) -> list[list[str] | str]:
    """For each history its items, or the code of its problem: one that cannot be answered does not hold up the rest."""
    requests = [{**ASK, "history": history} for history in histories]
    answers = post(client, "/recommend/sequential:batch", {"requests": requests})["answers"]
    return [
        answer["code"] if "status" in answer else [item["item_id"] for item in answer["items"]] for answer in answers
    ]


def recommend_from_events(client: httpx.Client) -> list[str]:
    """The next items after what the service was told: send events as they happen, then no request needs a history.

    An event that is sent again with its event_id is kept once, so a lost answer may be retried.
    """
    events = [{**USER, "item_id": item_id, "event_id": f"order-17-{item_id}"} for item_id in HISTORY]
    post(client, "/events", events)
    return [item["item_id"] for item in post(client, "/recommend/sequential", ASK)["items"]]


def explain(client: httpx.Client, item_id: str) -> Iterator[str]:
    """An explanation, as it is generated. Raises RuntimeError."""
    body = {**USER, "item_id": item_id, "stream": True}
    with client.stream("POST", "/explain", json=body) as response:
        if response.is_error:
            raise RuntimeError(response.read().decode())
        event = ""
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "token":
                yield json.loads(value)["text"]
            elif name == "data" and event == "error":
                raise RuntimeError(json.loads(value)["detail"])


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    with connected(url) as client:
        items = recommend(client)
        print(json.dumps({"items": items}))
        print(json.dumps({"many": recommend_many(client, [HISTORY, HISTORY[:1], ["no such toy"]])}))
        try:
            print(json.dumps({"from_events": recommend_from_events(client)}))
        except RuntimeError as error:
            if not str(error).startswith("histories_disabled"):
                raise
            print(json.dumps({"from_events": "histories_disabled"}))
        print(json.dumps({"text": "".join(explain(client, items[0]))}))


if __name__ == "__main__":
    main()
