"""The service on Ray Serve: a cluster of two nodes, twelve domains, and replicas that hold four."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from model.bundle.exchange.place import StorePlace
from model.bundle.exchange.push import push
from model.bundle.exchange.store import BundleStore
from service.http.app import create_app
from service.settings.settings import Settings
from tests.conftest import ROOT
from tests.e2e.ray_libraries import require_ray_serve
from tests.service.conftest import client_of
from tests.service.live import bundle_of

require_ray_serve()

if TYPE_CHECKING:
    from tests.e2e.ray_cluster import RayService

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Ray's own
    pytest.mark.usefixtures("only_cluster"),
]

DOMAINS = [f"shop-{number}" for number in range(12)]
HELD = 4


def body_of(domain: str) -> dict[str, Any]:
    return {"domain": domain, "history": ["item-1", "item-2"], "user_id": "u1", "k": 3}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles on one backbone, one for each domain."""
    root = tmp_path_factory.mktemp("ray")
    for seed, name in enumerate(("base", *DOMAINS, "late")):
        bundle_of(root / name, seed, name=name)
    return root


@pytest.fixture(scope="module")
def places(bundles: Path) -> dict[str, dict[str, str]]:
    """All bundles pushed to a store, and where domains are found there."""
    store = BundleStore(StorePlace.parse(f"file://{bundles}/store"))
    return {name: {"bundle": push(bundles / name, store).bundle} for name in (*DOMAINS, "late")}


@pytest.fixture(scope="module")
def service(bundles: Path, places: dict[str, dict[str, str]]) -> Iterator[RayService]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from service.ray.options import ApplicationOptions, DomainPlace, Scaling
        from tests.e2e.ray_cluster import RayService, cluster

    options = ApplicationOptions(
        settings={
            "bundle": str(bundles / "base"),
            "bundle_store": f"file://{bundles}/store",
            "bundles_root": str(bundles / "pulled"),
            "index_cache": "off",
            "num_threads": 1,
        },
        num_cpus=0.4,
        ingress_cpus=0.1,
        domains_per_replica=HELD,
        load_s=60,
        max_ongoing_requests=4,
        scaling=Scaling(
            max_replicas=3, target_ongoing_requests=2, upscale_delay_s=0.2, downscale_delay_s=1, look_back_s=3
        ),
        domains={name: DomainPlace(**places[name]) for name in DOMAINS},
    )
    with cluster(ROOT) as port:
        running = RayService(port, options)
        running.deploy()
        yield running


def plain_answers(bundle: Path, domain: str) -> list[dict[str, Any]]:
    """What one process that serves the bundle answers."""

    async def ask() -> list[dict[str, Any]]:
        async with client_of(create_app(Settings(bundle=bundle, num_threads=1, index_cache=Path("off")))) as client:
            found = [
                await client.post("/recommend/sequential", json=body_of(domain)),
                await client.get(f"/domains/{domain}"),
                await client.get(f"/domains/{domain}/items", params={"limit": 3}),
            ]
        return [comparable(each.json()) for each in found]

    return asyncio.run(ask())


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in {"request_id", "timings_ms"}}


def test_twelve_domains_are_answered_as_by_plain_servers_and_four_of_them_held(
    service: RayService, bundles: Path
) -> None:
    with service.client() as client:
        for domain in DOMAINS:
            found = [
                client.post("/recommend/sequential", json=body_of(domain)),
                client.get(f"/domains/{domain}"),
                client.get(f"/domains/{domain}/items", params={"limit": 3}),
            ]
            assert [each.status_code for each in found] == [200] * 3, found[0].text
            assert [comparable(each.json()) for each in found] == plain_answers(bundles / domain, domain)
        (held,) = service.held().values()
        assert held == set(DOMAINS[-HELD:])
        assert {each["name"] for each in client.get("/domains").json()["domains"]} == held


def test_the_load_adds_replicas_and_a_killed_one_loses_no_request(service: RayService) -> None:
    from tests.e2e.ray_cluster import Load, until

    load = Load(service, [body_of(domain) for domain in DOMAINS], num_clients=12)
    with load.running():
        until(lambda: len(service.replicas()) == 3)
        load.wait_more(60)
        assert all(len(held) <= HELD + 2 for held in service.held().values())
        killed = service.replicas()[0]
        service.kill(killed)
        until(lambda: killed not in service.replicas())
        load.wait_more(60)
    assert load.outcomes.keys() == {"answered"}
    until(lambda: len(service.replicas()) == 1)


def test_a_domain_is_added_and_another_changed_while_the_replicas_run(
    service: RayService, places: dict[str, dict[str, str]], bundles: Path
) -> None:
    from tests.e2e.ray_cluster import until

    before = service.replicas()
    (expected, *_) = plain_answers(bundles / "shop-1", "shop-1")
    with service.client() as client:

        def answer_of(domain: str) -> dict[str, Any]:
            return comparable(client.post("/recommend/sequential", json=body_of(domain)).json())

        assert client.post("/recommend/sequential", json=body_of("late")).json()["code"] == "unknown_domain"
        assert answer_of("shop-0")["items"] != expected["items"]
        service.deploy(domains={"late": places["late"], "shop-0": {**places["shop-1"], "domain": "shop-1"}})
        until(lambda: "items" in answer_of("late"))
        until(lambda: answer_of("shop-0")["items"] == expected["items"])
        assert answer_of("shop-0")["bundle"] == expected["bundle"]
    assert service.replicas() == before


def test_replicas_are_replaced_under_load_and_no_request_is_lost(service: RayService) -> None:
    from tests.e2e.ray_cluster import Load, until

    before = service.replicas()
    load = Load(service, [body_of("late"), body_of("shop-0")], num_clients=2)
    with load.running():
        service.deploy(settings=service.options.settings | {"max_candidates": 50})
        until(lambda: service.replicas() and not set(before) & set(service.replicas()))
        load.wait_more(10)
    assert load.outcomes.keys() == {"answered"}
