"""A real service that is changed while it answers, and what its answers must be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from model.progress import no_progress
from service.answering.prediction import predict_file
from service.settings.settings import Settings
from tests.e2e.load import PATIENCE_S, Answer
from tests.e2e.processes import Server
from tests.service.live import AUTHORIZED, TOKEN, bundle_of
from tests.tiny import tiny_catalog

Items: TypeAlias = list[dict[str, Any]]


def live_bundles(folder: Path, names: Iterable[str]) -> Path:
    """Bundles of 120 items on one backbone, each with weights of its own."""
    for seed, name in enumerate(names, start=1):
        bundle_of(folder / name, seed, catalog=tiny_catalog(120))
    return folder


def live_environment(folder: Path, **others: str) -> dict[str, str]:
    return {"VIP5_ADMIN_TOKEN": TOKEN, "VIP5_BUNDLES_ROOT": str(folder), **others}


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        yield client


@asynccontextmanager
async def admin_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.admin_url, timeout=PATIENCE_S) as client:
        yield client


async def change(client: httpx.AsyncClient, method: str, path: str, status: int = 200, **body: Any) -> dict[str, Any]:  # noqa: ANN401
    """A request to /admin/domains/toys; its answer, or the problem document if another status is due."""
    content = {"json": body} if method in {"POST", "PATCH", "PUT"} else {}
    response = await client.request(method, f"/admin/domains/toys{path}", headers=AUTHORIZED, **content)  # type: ignore[arg-type]
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def state_of(client: httpx.AsyncClient) -> dict[str, Any]:
    """What /admin says of toys, without what a restart may change."""
    body = await change(client, "GET", "")
    versions = {(each["version"], *each["roles"], each["num_active_items"]) for each in body["versions"]}
    return {"versions": versions, "canary": body["canary"], "catalog_revision": body["catalog_revision"]}


async def recomputed(bundles: Iterable[Path], answers: Iterable[Answer], folder: Path) -> dict[tuple[str, str], Items]:
    """Items by bundle hash and request, as `vip5 predict` finds them."""
    requests = sorted({json.dumps({"task": "sequential", **answer.request}) for answer in answers})
    asked, answered = folder / "in.jsonl", folder / "out.jsonl"
    asked.write_text("\n".join(requests) + "\n")
    found: dict[tuple[str, str], Items] = {}
    for bundle in bundles:
        await predict_file(Settings(bundle=bundle, num_threads=1), asked, answered, no_progress)
        for request, line in zip(requests, answered.read_text().splitlines(), strict=True):
            answer = json.loads(line)
            found[answer["bundle"], request] = answer["items"]
    return found


def check_answers(answers: Iterable[Answer], expected: Mapping[tuple[str, str], Items]) -> None:
    """Every answer is what the bundle that it names gives."""
    for answer in answers:
        assert answer.status == 200, answer.body
        items = expected[answer.body["bundle"], json.dumps({"task": "sequential", **answer.request})]
        assert [each["item_id"] for each in answer.body["items"]] == [each["item_id"] for each in items]
        scores = [each["score"] for each in answer.body["items"]]
        assert scores == pytest.approx([each["score"] for each in items], abs=1e-4)
