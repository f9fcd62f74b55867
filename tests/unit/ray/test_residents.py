"""Which domains a replica loads and lets go under Ray's multiplexing, with a stand-in that holds two as Ray does."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

import pytest

from service.errors import NotReadyError
from service.ray.residents import Load, Resident, Residents
from service.versions.held_domains import HeldDomains
from service.versions.state import VersionRef

DIRECTORY = {name: VersionRef("", "0" * 64, name) for name in ("a", "b", "c", "d")}


def holding_two(load: Load) -> Load:
    """Loads one at a time and forgets the least recently used, which leaves in a thread, as Ray's decorator does."""
    held: OrderedDict[str, Resident] = OrderedDict()
    lock = asyncio.Lock()

    async def find(name: str) -> Resident:
        if name not in held:
            async with lock:
                if name not in held:
                    if len(held) == 2:
                        _, leaving = held.popitem(last=False)
                        await asyncio.to_thread(leaving.__del__)
                    held[name] = await load(name)
        held.move_to_end(name)
        return held[name]

    return find


class FakeDomains:
    """Notes what is loaded; a domain with a gate loads when it is opened."""

    def __init__(self) -> None:
        self.directory: Mapping[str, VersionRef] = DIRECTORY
        self.held: set[str] = set()
        self.most = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.failing: set[str] = set()
        self.num_loads = 0

    async def hold(self, name: str) -> None:
        self.num_loads += 1
        if name in self.gates:
            await self.gates[name].wait()
        if name in self.failing:
            raise NotReadyError(f"{name} is broken")
        self.held.add(name)
        self.most = max(self.most, len(self.held))

    async def let_go(self, name: str) -> None:
        self.held.discard(name)


@pytest.fixture
def domains() -> FakeDomains:
    return FakeDomains()


def residents_of(domains: FakeDomains, load_s: float = 30) -> Residents:
    return Residents(cast(HeldDomains, domains), holding_two, load_s, lambda _: None)


async def use(residents: Residents, *names: str) -> None:
    for name in names:
        async with residents.used(name):
            pass


async def test_the_least_recently_used_leaves(domains: FakeDomains) -> None:
    residents = residents_of(domains)
    await use(residents, "a", "b", "a", "c")
    assert domains.held == {"a", "c"}
    assert (domains.most, domains.num_loads) == (2, 3)
    await use(residents, "b", "b", "unheard of")
    assert domains.held == {"b", "c"}
    assert domains.num_loads == 4


async def test_many_requests_for_a_cold_domain_load_it_once(domains: FakeDomains) -> None:
    residents = residents_of(domains)
    await asyncio.gather(*(use(residents, "a") for _ in range(20)))
    assert domains.num_loads == 1


async def test_a_domain_stays_until_its_requests_are_answered(domains: FakeDomains) -> None:
    residents = residents_of(domains)
    async with residents.used("a"):
        await use(residents, "b", "c", "d")
        assert "a" in domains.held
        async with residents.used("a"):
            pass
        assert "a" in domains.held
    await use(residents, "b", "c")
    assert domains.held == {"b", "c"}


async def test_a_slow_load_refuses_the_request_and_goes_on(domains: FakeDomains) -> None:
    domains.gates["a"] = asyncio.Event()
    residents = residents_of(domains, load_s=0.01)
    with pytest.raises(NotReadyError, match=r"still being loaded after 0\.01 s") as refused:
        await use(residents, "a")
    assert refused.value.retry_after_s
    domains.gates["a"].set()
    while "a" not in domains.held:  # noqa: ASYNC110  # a client retries just so
        await asyncio.sleep(0)
    await use(residents, "a")
    assert domains.num_loads == 1


async def test_a_domain_that_fails_is_left_alone_for_a_while(domains: FakeDomains) -> None:
    residents = residents_of(domains)
    domains.failing.add("a")
    for _ in range(3):
        with pytest.raises(NotReadyError, match="a is broken"):
            await use(residents, "a")
    assert domains.num_loads == 1
    domains.failing.clear()
    await residents.change_directory(DIRECTORY)
    await use(residents, "a")
    assert domains.held == {"a"}


async def test_what_leaves_the_directory_leaves_and_may_come_back(domains: FakeDomains) -> None:
    residents = residents_of(domains)
    await use(residents, "a", "b")
    await residents.change_directory({"b": DIRECTORY["b"]})
    await asyncio.sleep(0)
    assert domains.held == {"b"}
    await use(residents, "a")
    assert domains.held == {"b"}
    await residents.change_directory(DIRECTORY)
    await use(residents, "a")
    assert domains.held == {"a", "b"}
    await residents.close()
