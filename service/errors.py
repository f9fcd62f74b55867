"""The service's errors. `service/problem_documents.py` maps them to HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from model.errors import Vip5Error


class ServiceError(Vip5Error):
    """An error of the service itself. `retry_after_s` becomes the Retry-After header."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownPictureError(ServiceError):
    """The item has no picture that could be sent."""

    code = "unknown_picture"


class RangeError(ServiceError):
    """The range begins behind the end of what it asks for, which has `num_bytes`."""

    code = "range_not_satisfiable"

    def __init__(self, message: str, *, num_bytes: int = 0) -> None:
        super().__init__(message)
        self.num_bytes = num_bytes


class MalformedBodyError(ServiceError):
    """The body is not JSON."""

    code = "malformed_body"


class ContentTypeError(ServiceError):
    """The Content-Type is not JSON, or the body is compressed."""

    code = "unsupported_media_type"


class BodyTooLargeError(ServiceError):
    """The body exceeds the size limit."""

    code = "body_too_large"


class BodyTimeoutError(ServiceError):
    """The body did not arrive within the time limit."""

    code = "request_timeout"

    @classmethod
    def after(cls, limit_s: float) -> Self:
        return cls(f"the body was not complete within {limit_s} s; send it faster")


class MalformedRequestError(ServiceError):
    """The request is not valid HTTP, or is ambiguous."""

    code = "malformed_request"


class HeadTooLargeError(ServiceError):
    """The request line and headers exceed the limits on their size and number."""

    code = "head_too_large"


class HeadTimeoutError(BodyTimeoutError):
    """The headers did not arrive within the time limit."""


class UnknownHostError(ServiceError):
    """The Host header does not name the service."""

    code = "unknown_host"


class UnknownRouteError(ServiceError):
    """No such path."""

    code = "unknown_route"


class MethodError(ServiceError):
    """The path does not support this method."""

    code = "method_not_allowed"


class QueueFullError(ServiceError):
    """The queue is full."""

    code = "queue_full"


class OverloadedError(ServiceError):
    """The requests already in the queue would take longer than this request's deadline allows."""

    code = "overloaded"


class LoadTooLargeError(ServiceError):
    """The request is more than a queue, a rate limit or a quota ever admits at once."""

    code = "load_too_large"


class RateLimitedError(ServiceError):
    """The client exceeded its rate limit."""

    code = "rate_limited"


class TooManyConnectionsError(ServiceError):
    """The process has no file descriptors left for the client's connection."""

    code = "too_many_connections"


class NotReadyError(ServiceError):
    """Domains are not warmed up yet, or have failed."""

    code = "not_ready"


class DrainingError(ServiceError):
    """The service is shutting down and accepts no new requests."""

    code = "draining"


class DeadlineError(ServiceError):
    """The request's deadline passed before the answer was complete."""

    code = "deadline_exceeded"

    @classmethod
    def of_queue(cls, waited_s: float) -> Self:
        """Of a request that waited for so long; below 0 if its deadline had passed before."""
        when = f"within {waited_s:.3f} s of queueing" if waited_s > 0 else "before the deadline passed"
        return cls(f"no answer {when}; allow a longer deadline_ms or retry when fewer requests are waiting")


class ClientDisconnectedError(ServiceError):
    """The client closed the connection before the answer was complete."""

    code = "client_closed_request"


class UnauthorizedError(ServiceError):
    """The admin token or API key is missing or wrong."""

    code = "unauthorized"


class CrossOriginError(ServiceError):
    """CORS does not allow the request that a browser announced."""

    code = "cross_origin_refused"


class ForbiddenError(ServiceError):
    """The key or token is valid, and may not do this."""

    code = "forbidden"


class UnknownBundleError(ServiceError):
    """There is no bundle of this name."""

    code = "unknown_bundle"


class UnknownVersionError(ServiceError):
    """No such version of the domain is loaded."""

    code = "unknown_version"


class RevisionConflictError(ServiceError):
    """The state has changed since the expected revision."""

    code = "revision_conflict"


class OperationConflictError(ServiceError):
    """The operation is not possible in the domain's current state, or while another change is in progress."""

    code = "operation_conflict"


class ChangeTimeoutError(ServiceError):
    """A change waited too long for another change, or for requests that began before it."""

    code = "change_timeout"


@dataclass(frozen=True)
class LateReplica:
    """A replica that does not serve a change, and why."""

    name: str
    state: str
    reason: str


class ReplicasDifferError(ServiceError):
    """A change is made, and not all replicas serve it."""

    code = "replicas_differ"

    def __init__(self, message: str, replicas: Sequence[LateReplica] = ()) -> None:
        super().__init__(message)
        self.replicas = replicas


class JournalError(ServiceError):
    """The journal cannot be written, so the change is not made."""

    code = "journal_unavailable"


class JournalBrokenError(JournalError):
    """What Redis holds is not what this replica followed, or cannot be read, so the change is not made."""

    code = "journal_broken"


class HistoriesDisabledError(ServiceError):
    """The service keeps no histories."""

    code = "histories_disabled"


class HistoriesUnavailableError(ServiceError):
    """Histories cannot be read or written now."""

    code = "histories_unavailable"


class NoHistoryError(ServiceError):
    """The user has no history to recommend from, and the request allows no fallback."""

    code = "no_history"


class LaneFailedError(ServiceError):
    """A lane failed outside of its batches; the service shuts down."""

    code = "lane_failed"


class ApiKeysError(ServiceError):
    """A file of API keys or admin tokens is invalid; the service does not start with it."""

    code = "invalid_api_keys"


class AuditLogError(ServiceError):
    """The audit log cannot be written; the service does not start."""

    code = "invalid_audit_log"


class BeamTableError(ServiceError):
    """The table of measured beam widths cannot be read; the service does not start."""

    code = "invalid_beam_table"


class ListenError(ServiceError):
    """The service cannot listen on the address, and does not start."""

    code = "cannot_listen"


class TracesError(ServiceError):
    """A library that traces need is not installed; the service does not start."""

    code = "no_traces"
