"""What tests of /admin share: bundles on one backbone, and the app with a token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from model.bundle.catalog import Catalog
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.users import Users
from model.bundle.writer import BundleWriter
from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking, Timings
from model.network.config import BackboneConfig, DomainLayout
from model.planning.domain import ServedDomain
from model.planning.runtime import Runtime
from service.answering.service import Loader, load
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.engines import DisguisedEngine
from tests.service.conftest import client_of
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, random_tensors, tiny_catalog, tiny_features, tiny_tokenizer

TOKEN = "open-sesame-open-sesame"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1", "item-2"], "user_id": "u1", "k": 5}
WIDER: DomainLayout = replace(TINY_LAYOUT, bottleneck=6, visual_tokens=3, category_rows=20)


def bundle_of(
    root: Path,
    seed: int,
    *,
    name: str = "toys",
    layout: DomainLayout = TINY_LAYOUT,
    backbone: BackboneConfig = TINY_BACKBONE,
    catalog: Catalog | None = None,
    backbone_seed: int = 0,
) -> Path:
    """A bundle whose one domain has weights that only the seed decides."""
    catalog = tiny_catalog(40) if catalog is None else catalog
    users = Users.from_rows({"user_id": f"u{n}", "index": str(n), "name": f"Ann {n}"} for n in range(1, 10))
    spec = DomainSpec(name, layout, "", encoder=ImageEncoder("vitb32", layout.feature_dim), trained=False)
    adapter = random_tensors(expected_domain_shapes(backbone, layout), seed)
    with BundleWriter(root) as writer:
        tensors = random_tensors(expected_shapes(backbone), backbone_seed)
        writer.share_backbone(backbone, tensors, tiny_tokenizer())
        features = tiny_features(catalog, layout.feature_dim)
        writer.add_domain(spec, adapter, catalog, users=users, features=features)
        writer.seal()
    return root


def two_bundles(folder: Path) -> Path:
    """`first`, and `second`, whose layout is wider, with one backbone."""
    bundle_of(folder / "first", 1)
    bundle_of(folder / "second", 2, layout=WIDER)
    return folder


def live_settings(folder: Path, **others: Any) -> Settings:  # noqa: ANN401  # whatever settings take
    """The bundle `first` of a folder of bundles, with a journal beside it."""
    return Settings(bundle=folder / "first", bundles_root=folder, admin_token=SecretStr(TOKEN), num_threads=1, **others)


class Shop:
    """A client of the app as those who ask and those who change see it."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client

    async def ask(self, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        response = await self.client.post("/recommend/sequential", json=ASK | fields)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def scores(self, **fields: Any) -> list[float]:  # noqa: ANN401
        return [item["score"] for item in (await self.ask(**fields))["items"]]

    async def admin(self, method: str, path: str, status: int = 200, **options: Any) -> Any:  # noqa: ANN401
        """The answer's body, or the problem document if another status is due."""
        headers = AUTHORIZED | options.pop("headers", {})
        response = await self.client.request(method, f"/admin{path}", headers=headers, **options)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def load(self, bundle: str, status: int = 200, **fields: Any) -> Any:  # noqa: ANN401
        return await self.admin("POST", "/domains/toys/load", status, json={"bundle": bundle} | fields)

    async def patch(self, status: int = 200, **fields: Any) -> Any:  # noqa: ANN401
        return await self.admin("PATCH", "/domains/toys/catalog", status, json=fields)

    async def versions(self, name: str = "toys") -> dict[str, str]:
        """Version by role."""
        body = await self.admin("GET", f"/domains/{name}")
        return {role: each["version"] for each in body["versions"] for role in each["roles"]}

    async def is_unknown(self, domain: str) -> None:
        """Checks that nobody is answered from a domain."""
        response = await self.client.post("/recommend/sequential", json=ASK | {"domain": domain})
        assert (response.status_code, response.json()["code"]) == (404, "unknown_domain")

    def revision(self) -> int:
        """The catalog's revision as requests see it."""
        return int(state_of(self.app).service.domains.version("toys").catalog_revision)

    def catalog(self, name: str) -> Catalog:
        """The catalog as it is served."""
        domain: ServedDomain = state_of(self.app).service.domains.domain(name)
        return domain.catalog

    async def until_slots(self, number: int) -> None:
        """Wait until so many slots of the engine are taken."""
        async with asyncio.timeout(30):
            while (await self.admin("GET", "/domains"))["num_slots"] != number:  # noqa: ASYNC110  # as operators poll
                await asyncio.sleep(0.001)

    async def metrics(self, name: str = "") -> str:
        """Samples whose line begins with a name."""
        text = (await self.client.get("/metrics")).text
        return "\n".join(line for line in text.splitlines() if line.startswith(name))


@asynccontextmanager
async def shop_of(settings: Settings, loader: Loader = load) -> AsyncIterator[Shop]:
    app = create_app(settings, loader)
    async with client_of(app) as client:
        yield Shop(app, client)


class HeldEngine(DisguisedEngine):
    """The real engine behind a gate."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.vacated: list[int] = []

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        if not self.gate.is_set():
            self.entered.release()
            assert self.gate.wait(timeout=30)
        return self._engine.search(batch)

    async def hold(self, shop: Shop) -> asyncio.Task[dict[str, Any]]:
        """A request that is with the engine until the gate is opened."""
        self.gate.clear()
        running = asyncio.create_task(shop.ask())
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)
        return running

    def vacate(self, slot: int) -> None:
        self.vacated.append(slot)
        self._engine.vacate(slot)


@asynccontextmanager
async def held_shop(settings: Settings) -> AsyncIterator[tuple[Shop, HeldEngine]]:
    engines: list[HeldEngine] = []

    def loader(settings: Settings) -> Runtime:
        runtime = load(settings)
        engines.append(HeldEngine(runtime))
        return replace(runtime, engine=engines[0])

    async with shop_of(settings, loader) as shop:
        yield shop, engines[0]


def ids_of(answer: dict[str, Any]) -> Sequence[str]:
    return [item["item_id"] for item in answer["items"]]
