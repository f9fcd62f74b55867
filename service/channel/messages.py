"""The messages between the engine process and a worker.

Both ends are of one release, so the format has no versions. Numbers of requests are the worker's, numbers of versions
the engine's. Times are those of time.monotonic, which all processes of a machine share.
"""

# Arrays are the little-endian bytes of the type in the comment.

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

RANKING, TEXT = 0, 1
"""Lanes."""


class WirePrompt(Struct, array_like=True, frozen=True):
    """A `Prompt`."""

    input_ids: bytes  # int32
    whole_word_ids: bytes  # int32
    category_ids: bytes  # int32
    image_items: list[int]
    num_tokens_untruncated: int


class WireFeatures(Struct, array_like=True, frozen=True):
    """Embeddings [U, D] of the images of all prompts, and the rows that each prompt shows."""

    rows: bytes
    dtype: str
    dim: int
    places: list[bytes] | None = None  # int64; None: a single prompt shows all rows in order


class WirePrompts(Struct, array_like=True, frozen=True):
    """What all kinds of plans have."""

    version: int
    task: str
    template: str
    prompts: list[WirePrompt]
    features: WireFeatures | None


class WireEligibility(Struct, array_like=True, frozen=True):
    """The leaves that a search may return. The members of a filter travel once per connection."""

    filter_key: bytes  # empty for all active items
    members: bytes | None  # packed bits, if the filter is new to this connection
    excluded: bytes  # int32
    included: bytes | None  # int32


class WireSearch(Struct, array_like=True, tag="search", frozen=True):
    """A `RankingPlan`."""

    prompts: WirePrompts
    eligibility: WireEligibility
    k: int
    num_beams: int
    length_penalty: float
    certified: bool


class WireScoring(Struct, array_like=True, tag="score", frozen=True):
    """A `ScoringPlan`."""

    prompts: WirePrompts
    targets: list[list[int]]
    leaves: bytes  # int32
    k: int
    is_attribution: bool  # whether it is an `AttributionPlan`


class WireText(Struct, array_like=True, tag="text", frozen=True):
    """A `TextPlan`."""

    prompts: WirePrompts
    max_new_tokens: int
    num_beams: int
    temperature: float
    top_p: float
    seed: int | None


WirePlan: TypeAlias = WireSearch | WireScoring | WireText


# From a worker


class Hello(Struct, array_like=True, tag="hello", frozen=True):
    """The worker has read the bundle and can prepare versions."""

    pid: int


class Listening(Struct, array_like=True, tag="listening", frozen=True):
    """The worker accepts connections."""


class Status(Struct, array_like=True, tag="status", frozen=True):
    """Sent regularly: the worker's event loop works."""

    problems: list[str]
    is_redis_up: bool | None
    requests: dict[int, int]  # in progress, by version


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


class Abandon(Struct, array_like=True, tag="abandon", frozen=True):
    """Nobody waits for a request any more."""

    request: int


class Count(Struct, array_like=True, tag="count", frozen=True):
    """Count against a limit that all workers share: `name` is a client, `quota` the limits if it is a key's."""

    request: int
    name: str
    cost: int
    quota: str | None


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


class Drain(Struct, array_like=True, tag="drain", frozen=True):
    """Refuse new requests. With `stops`, also stop listening, complete what runs, and end."""

    stops: bool


class Admitted(Struct, array_like=True, tag="admitted", frozen=True):
    """A text that streams waits in the lane."""

    request: int


class Ranked(Struct, array_like=True, tag="ranked", frozen=True):
    """A `Ranking`."""

    request: int
    leaves: bytes  # int64
    scores: bytes  # float64
    exact_prefix: int
    num_beams: int
    times: tuple[float, float, float]  # seconds: in the queue, encoding, decoding


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
    Hello | Listening | Status | Acknowledged | Settled | Forgotten | Submit | Abandon | Count | Call | Received
)
FromEngine: TypeAlias = (
    Prepare
    | Publish
    | Discard
    | Listen
    | Drain
    | Admitted
    | Ranked
    | Scored
    | Token
    | Written
    | Failed
    | Load
    | Counted
    | Receive
    | Answer
    | AnswerPart
)
