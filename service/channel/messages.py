"""The messages between the engine process and a worker.

Both ends are of one release, so the format has no versions. Numbers of requests are the worker's, numbers of versions
the engine's. Times are those of time.monotonic, which all processes of a machine share.
"""

# Arrays are the little-endian bytes of the type in the comment.

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from service.channel.plan_messages import WirePlan

RANKING, TEXT = 0, 1
"""Lanes."""


# From a worker


class Hello(Struct, array_like=True, tag="hello", frozen=True):
    """The worker has read the bundle and can prepare versions."""

    pid: int


class Listening(Struct, array_like=True, tag="listening", frozen=True):
    """The worker accepts connections."""


class Status(Struct, array_like=True, tag="status", frozen=True):
    """Sent regularly, and when the problems have changed: the worker's event loop works."""

    problems: list[str]
    is_redis_up: bool | None  # None: it uses none
    requests: dict[int, int]  # in progress, by version
    rankings: dict[int, list[str]]  # ids of those that use superseded versions


class Acknowledged(Struct, array_like=True, tag="acknowledged", frozen=True):
    """A change with this number is made; with an error, it is not."""

    number: int
    error: str | None = None


class Settled(Struct, array_like=True, tag="settled", frozen=True):
    """No ranking of the worker uses a superseded version any more."""

    version: int


class Forgotten(Struct, array_like=True, tag="forgotten", frozen=True):
    """Nothing of the worker uses a version any more."""

    version: int


class Submit(Struct, array_like=True, tag="submit", frozen=True):
    """A request for a lane."""

    request: int
    plan: WirePlan
    deadline: float
    client: str
    weight: float
    streams: bool
    place: tuple[int, int] | None = None  # an admission, and the number of one of its requests


class WireRequest(Struct, array_like=True, frozen=True):
    """What is known of a request that wants a place."""

    num_rows: int
    longest: int
    size: int
    deadline: float


class Admit(Struct, array_like=True, tag="admit", frozen=True):
    """Hold places for all requests of one body. Answered by `Admitted` or `Failed`."""

    admission: int
    requests: list[WireRequest]
    client: str
    weight: float


class GiveUp(Struct, array_like=True, tag="give_up", frozen=True):
    """Free the place of one request of an admission, or all that are left, which ends it."""

    admission: int
    number: int | None


class Abandon(Struct, array_like=True, tag="abandon", frozen=True):
    """Nobody waits for a request any more."""

    request: int


class Count(Struct, array_like=True, tag="count", frozen=True):
    """Count against a limit that all workers share: `name` is a client, `quota` the limits if it is a key's."""

    request: int
    name: str
    cost: int
    quota: str | None


class AskHistories(Struct, array_like=True, tag="ask_histories", frozen=True):
    """A call of the store of histories in the engine process: its method, and the arguments in msgpack."""

    request: int
    method: str
    arguments: bytes


class Call(Struct, array_like=True, tag="call", frozen=True):
    """An HTTP request that the engine process answers: the ASGI scope as far as it is plain data."""

    call: int
    scope: dict[str, object]
    headers: list[tuple[bytes, bytes]]


class Received(Struct, array_like=True, tag="received", frozen=True):
    """The next part of a call's body, or its client's end."""

    call: int
    body: bytes
    has_more: bool
    is_disconnected: bool


# From the engine process


class Prepare(Struct, array_like=True, tag="prepare", frozen=True):
    """Build a version of a domain."""

    number: int
    version: int
    name: str
    slot: int
    ref: tuple[str, str, str]
    placement: int  # versions of equal placement share a slot
    state: bytes  # the domain's state, as in the journal
    has_index: bool  # whether the descriptor of the bundle's compiled catalog is the next on the other socket


class Publish(Struct, array_like=True, tag="publish", frozen=True):
    """Route new requests of a domain to these versions."""

    number: int
    name: str
    state: bytes  # with the roles
    versions: list[int]  # in the order of the roles' versions


class Discard(Struct, array_like=True, tag="discard", frozen=True):
    """A version that was prepared is not needed."""

    version: int


class Listen(Struct, array_like=True, tag="listen", frozen=True):
    """All versions are there: accept connections."""


class Ready(Struct, array_like=True, tag="ready", frozen=True):
    """What the service waits for before it accepts requests, by domain, and whether it refuses new ones."""

    number: int
    waiting_for: dict[str, str]
    is_draining: bool


class Stop(Struct, array_like=True, tag="stop", frozen=True):
    """Refuse new requests, stop listening, complete what runs, and end."""


class Admitted(Struct, array_like=True, tag="admitted", frozen=True):
    """A text that streams waits in the lane, or the requests of a body have their places."""

    request: int


class Ranked(Struct, array_like=True, tag="ranked", frozen=True):
    """A `Ranking`."""

    request: int
    leaves: bytes  # int64
    scores: bytes  # float64
    exact_prefix: int
    num_beams: int
    times: tuple[float, float, float]  # seconds: in the queue, encoding, decoding
    boosted: bytes | None  # float64
    is_short: bool


class Scored(Struct, array_like=True, tag="scored", frozen=True):
    """The `LogProbs` of an `AttributionPlan`."""

    request: int
    log_probs: tuple[tuple[float, ...], ...]
    times: tuple[float, float, float]


class Token(Struct, array_like=True, tag="token", frozen=True):
    """The next token of a text."""

    request: int
    token_id: int


class Written(Struct, array_like=True, tag="written", frozen=True):
    """A `GeneratedText`."""

    request: int
    token_ids: list[int]
    score: float
    finish_reason: str
    times: tuple[float, float, float]


class Failed(Struct, array_like=True, tag="failed", frozen=True):
    """A request's error."""

    request: int
    code: str
    message: str
    retry_after_s: int | None


class Load(Struct, array_like=True, tag="load", frozen=True):
    """How busy a lane is for a client: rides on every reply, so that workers refuse before they plan."""

    lane: int
    client: str
    completion_s: float
    num_waiting: int
    is_full: bool


class Counted(Struct, array_like=True, tag="counted", frozen=True):
    """The answer to `Count`; with an error, nothing was counted."""

    request: int
    error: str | None
    retry_after_s: int | None


class ToldHistories(Struct, array_like=True, tag="told_histories", frozen=True):
    """The answer to `AskHistories`: what was returned, in msgpack, or why that was not possible."""

    request: int
    result: bytes
    error: str | None
    retry_after_s: int | None


class Receive(Struct, array_like=True, tag="receive", frozen=True):
    """A call wants the next part of its body."""

    call: int


class Answer(Struct, array_like=True, tag="answer", frozen=True):
    """The head of a call's answer."""

    call: int
    status: int
    headers: list[tuple[bytes, bytes]]


class AnswerPart(Struct, array_like=True, tag="part", frozen=True):
    """A part of a call's answer. Without an answer before, the call failed."""

    call: int
    body: bytes
    has_more: bool


FromWorker: TypeAlias = (
    Hello
    | Listening
    | Status
    | Acknowledged
    | Settled
    | Forgotten
    | Submit
    | Admit
    | GiveUp
    | Abandon
    | Count
    | AskHistories
    | Call
    | Received
)
FromEngine: TypeAlias = (
    Prepare
    | Publish
    | Discard
    | Listen
    | Ready
    | Stop
    | Admitted
    | Ranked
    | Scored
    | Token
    | Written
    | Failed
    | Load
    | Counted
    | ToldHistories
    | Receive
    | Answer
    | AnswerPart
)
