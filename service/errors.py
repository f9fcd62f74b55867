"""The service's errors, and the table that maps every error to an HTTP status.

Knows no web framework: the command line writes the same problem documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from pydantic import ValidationError

from model.errors import (
    BackboneMismatchError,
    BundleError,
    CatalogError,
    EngineError,
    InputError,
    IntegrityError,
    UnknownColumnError,
    UnknownDomainError,
    UnknownItemError,
    UnknownTemplateError,
    UnsafeFileError,
    UntrustedBundleError,
    Vip5Error,
)
from service.schemas.problem import FieldError, Problem

MAX_VALUE_LENGTH = 60
MAX_FIELD_ERRORS = 100
"""Most errors reported for one body, so that an answer is not much longer than the request."""

Fault: TypeAlias = Mapping[str, Any]
"""One of pydantic's errors, with `loc`, `msg`, `type` and `input`."""


class ServiceError(Vip5Error):
    """An error of the service itself. `retry_after_s` becomes the Retry-After header."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownPictureError(ServiceError):
    """The item has no picture that could be sent."""

    code = "unknown_picture"


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


class JournalError(ServiceError):
    """The journal cannot be written, so the change is not made."""

    code = "journal_unavailable"


class JournalBrokenError(JournalError):
    """What Redis holds is not what this replica followed, or cannot be read, so the change is not made."""

    code = "journal_broken"


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


@dataclass(frozen=True)
class Status:
    """HTTP status and title of an error."""

    status: int
    title: str
    is_retryable: bool = False


STATUSES: dict[type[Exception], Status] = {
    InputError: Status(422, "The request cannot be answered as it stands"),
    UnknownColumnError: Status(422, "The catalog has no such column"),
    UnknownDomainError: Status(404, "The domain is not served"),
    UnknownItemError: Status(404, "The item is not in the catalog"),
    UnknownTemplateError: Status(404, "The template does not exist"),
    UnknownPictureError: Status(404, "The item has no picture"),
    ValidationError: Status(422, "The request is not valid"),
    MalformedBodyError: Status(400, "The body is not JSON"),
    UnknownHostError: Status(400, "The service has another name"),
    UnknownRouteError: Status(404, "No such path"),
    MethodError: Status(405, "The path does not take this method"),
    UnauthorizedError: Status(401, "The API key or the admin token is missing or wrong"),
    CrossOriginError: Status(400, "Pages of this origin may not send this request"),
    ForbiddenError: Status(403, "The key or token may not do this"),
    UnknownBundleError: Status(404, "There is no such bundle"),
    UnknownVersionError: Status(404, "No such version is loaded"),
    RevisionConflictError: Status(409, "It has been changed meanwhile"),
    OperationConflictError: Status(409, "The domain is in another state"),
    BundleError: Status(422, "The bundle breaks a rule"),
    IntegrityError: Status(422, "The bundle's files are not what its manifest says"),
    BackboneMismatchError: Status(422, "The bundle has another backbone"),
    CatalogError: Status(422, "The catalog breaks a rule"),
    UnsafeFileError: Status(422, "The file would execute code"),
    UntrustedBundleError: Status(422, "No trusted key signed the bundle"),
    BodyTooLargeError: Status(413, "The body is too large"),
    BodyTimeoutError: Status(408, "The request came too slowly"),
    MalformedRequestError: Status(400, "The request is not HTTP as it must be"),
    HeadTooLargeError: Status(431, "The headers are too large"),
    ContentTypeError: Status(415, "The body must be JSON"),
    QueueFullError: Status(429, "Too many requests are waiting", is_retryable=True),
    OverloadedError: Status(429, "The deadline would pass in the queue", is_retryable=True),
    RateLimitedError: Status(429, "Too many requests from one client", is_retryable=True),
    ClientDisconnectedError: Status(499, "The client closed the connection"),
    EngineError: Status(500, "The model failed at this request"),
    TooManyConnectionsError: Status(503, "Too many connections are open", is_retryable=True),
    NotReadyError: Status(503, "The service is not ready", is_retryable=True),
    JournalError: Status(503, "Changes cannot be kept", is_retryable=True),
    JournalBrokenError: Status(503, "The journal is another one or damaged", is_retryable=True),
    DrainingError: Status(503, "The service is draining", is_retryable=True),
    ChangeTimeoutError: Status(504, "The change waited too long", is_retryable=True),
    DeadlineError: Status(504, "The deadline passed", is_retryable=True),
    Exception: Status(500, "The service failed at this request"),
}


REJECTED = frozenset({413, 429, 503, 504})
"""Statuses of requests that were rejected for size, load or time."""

REJECTION_REASONS = tuple(
    sorted(kind.code for kind, status in STATUSES.items() if status.status in REJECTED and issubclass(kind, Vip5Error))
)


def status_of(error: Exception) -> Status:
    """The entry of the error's class, or of its nearest base class in the table."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def code_of(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return InputError.code
    return error.code if isinstance(error, Vip5Error) else Vip5Error.code


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem document of an error. Details of unexpected errors are not disclosed."""
    if isinstance(error, ValidationError):
        return validation_problem(error.errors(), request_id)
    status = status_of(error)
    is_public = isinstance(error, Vip5Error)
    field = error.field if isinstance(error, InputError) else None
    errors = [FieldError(field=field, message=str(error), code=code_of(error))] if field else None
    return Problem(
        type=f"urn:vip5:problem:{code_of(error)}",
        title=status.title,
        status=status.status,
        detail=str(error) if is_public else "An unexpected error; the log contains its cause under this request_id.",
        code=code_of(error),
        request_id=request_id,
        retryable=status.is_retryable,
        errors=errors,
    )


def validation_problem(faults: Sequence[Fault], request_id: str) -> Problem:
    """The problem document of pydantic's list of errors."""
    errors = [_field_error(fault) for fault in faults[:MAX_FIELD_ERRORS]]
    status = STATUSES[ValidationError]
    return Problem(
        type=f"urn:vip5:problem:{InputError.code}",
        title=status.title,
        status=status.status,
        detail="; ".join(f"{error.field}: {error.message}" for error in errors[:3])
        + (f"; and {len(faults) - 3} more" if len(faults) > 3 else ""),
        code=InputError.code,
        request_id=request_id,
        retryable=status.is_retryable,
        errors=errors,
    )


def _field_error(fault: Fault) -> FieldError:
    location = [_truncated(str(part)) for part in fault["loc"] if part not in ("body", "query", "path")]
    value = fault.get("input")
    message = fault["msg"]
    if isinstance(value, str | int | float | bool):
        message = f"{message}; got {_truncated(repr(value))}"
    return FieldError(field=".".join(location) or "body", message=message, code=fault["type"])


def _truncated(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else text[:MAX_VALUE_LENGTH] + "…"
