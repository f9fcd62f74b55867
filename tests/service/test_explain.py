"""POST /explain answers with a text, whole or token by token."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY: dict[str, Any] = {"domain": "toys", "item_id": "item-5", "user_id": "u1", "max_new_tokens": 8}


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    assert response.headers["Content-Type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def test_an_item_is_explained(shared_client: httpx.AsyncClient) -> None:
    answer = (await shared_client.post("/explain", json=BODY)).json()

    assert answer["text"]
    assert answer["star_rating"] is None
    assert answer["template"] == "C-1"
    assert answer["finish_reason"] in {"stop", "length"}
    assert answer["domain"] == "toys"
    assert [each["kind"] for each in answer["degraded"]] == ["untrained_model"]


@pytest.mark.parametrize(
    ("given", "template"),
    [
        ({}, "C-1"),
        ({"user_name": "Ada"}, "C-4"),
        ({"feature": "colour"}, "C-9"),
        ({"feature": "colour", "star_rating": 4}, "C-11"),
        ({"review_headline": "nice"}, "C-2"),
        ({"template": "C-8"}, "C-8"),
    ],
)
async def test_the_template_follows_what_is_given(
    shared_client: httpx.AsyncClient, given: dict[str, Any], template: str
) -> None:
    response = await shared_client.post("/explain", json=BODY | given)

    assert response.json()["template"] == template


async def test_an_item_without_an_image_embedding_is_explained_and_that_is_said(
    shared_client: httpx.AsyncClient,
) -> None:
    answer = (await shared_client.post("/explain", json=BODY | {"item_id": "item-11"})).json()

    assert {"kind": "missing_features", "detail": "1 of 1 items of the prompt had no image embedding"} in answer[
        "degraded"
    ]


async def test_drawing_repeats_with_the_same_seed(shared_client: httpx.AsyncClient) -> None:
    async def text(seed: int) -> str:
        body = BODY | {"temperature": 2.0, "seed": seed, "max_new_tokens": 20}
        return str((await shared_client.post("/explain", json=body)).json()["text"])

    assert await text(1) == await text(1)
    assert await text(1) != await text(2)


@pytest.mark.parametrize("template", ["C-1", "C-8"])
async def test_streamed_tokens_add_up_to_the_answer(shared_client: httpx.AsyncClient, template: str) -> None:
    body = BODY | {"temperature": 1.0, "seed": 5, "template": template}
    whole = (await shared_client.post("/explain", json=body)).json()

    events = events_of(await shared_client.post("/explain", json=body | {"stream": True}))

    *tokens, (last, done) = events
    assert last == "done"
    assert {name for name, _ in tokens} == {"token"}
    assert done | {"request_id": ""} == whole | {"request_id": ""}
    if template == "C-1":
        assert "".join(data["text"] for _, data in tokens) == whole["text"]
        assert len(tokens) > 1


async def test_a_stream_of_several_beams_has_the_answer_only(shared_client: httpx.AsyncClient) -> None:
    events = events_of(await shared_client.post("/explain", json=BODY | {"stream": True, "num_beams": 3}))

    assert [name for name, _ in events] == ["done"]


async def test_what_is_wrong_with_a_request_for_a_stream_is_a_problem_and_no_stream(
    shared_client: httpx.AsyncClient,
) -> None:
    response = await shared_client.post("/explain", json=BODY | {"stream": True, "item_id": "none"})

    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
