"""The service's own errors, and the one table that maps every error to an HTTP status.

Knows no web framework: the command line writes the same problem documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
    Vip5Error,
)
from service.schemas.problem import FieldError, Problem

LONGEST_VALUE = 60
MOST_FAULTS = 100
"""Most faults told of one body: an answer must not be much longer than the request."""

Fault: TypeAlias = Mapping[str, Any]


class ServiceError(Vip5Error):
    """An error of the service itself. `retry_after_s` is when trying again makes sense, if it does."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MalformedBodyError(ServiceError):
    """The body is not JSON."""

    code = "malformed_body"


class ContentTypeError(ServiceError):
    """The body is not said to be JSON."""

    code = "unsupported_media_type"


class BodyTooLargeError(ServiceError):
    """The body is longer than the service reads."""

    code = "body_too_large"


class BodyTimeoutError(ServiceError):
    """The body was not there in time."""

    code = "request_timeout"


class MalformedRequestError(ServiceError):
    """What came is not HTTP, or may be read in more than one way."""

    code = "malformed_request"


class HeadTooLargeError(ServiceError):
    """The request line and the headers are longer, or more, than the service reads."""

    code = "head_too_large"


class HeadTimeoutError(BodyTimeoutError):
    """The headers were not there in time."""


class UnknownRouteError(ServiceError):
    """No such path."""

    code = "unknown_route"


class MethodError(ServiceError):
    """The path does not take this method."""

    code = "method_not_allowed"


class QueueFullError(ServiceError):
    """Too many requests are waiting."""

    code = "queue_full"


class OverloadedError(ServiceError):
    """What waits already would take longer than the request's deadline allows."""

    code = "overloaded"


class RateLimitedError(ServiceError):
    """The client has sent more requests than it may."""

    code = "rate_limited"


class NotReadyError(ServiceError):
    """The domains have not been warmed up yet."""

    code = "not_ready"


class DrainingError(ServiceError):
    """The service is about to end and takes no new request."""

    code = "draining"


class DeadlineError(ServiceError):
    """The answer was not there in time."""

    code = "deadline_exceeded"


class ClientGoneError(ServiceError):
    """The client closed the connection before the answer was there."""

    code = "client_closed_request"


class UnauthorizedError(ServiceError):
    """No admin token or API key was given, or a wrong one."""

    code = "unauthorized"


class UnknownBundleError(ServiceError):
    """There is no bundle of this name."""

    code = "unknown_bundle"


class UnknownVersionError(ServiceError):
    """No such version of the domain is loaded."""

    code = "unknown_version"


class RevisionConflictError(ServiceError):
    """Something has been changed since the revision that was expected."""

    code = "revision_conflict"


class OperationConflictError(ServiceError):
    """What is asked does not fit the versions that there are, or another change that is under way."""

    code = "operation_conflict"


class JournalError(ServiceError):
    """Changes cannot be kept, so they are not made."""

    code = "journal_unavailable"


class LaneFailedError(ServiceError):
    """A lane has failed itself, and not by one of its batches; the service ends."""

    code = "lane_failed"


class ApiKeysError(ServiceError):
    """The file of API keys cannot be read; the service does not start, or goes on with the keys that it has."""

    code = "invalid_api_keys"


class BeamTableError(ServiceError):
    """The table of measured widths cannot be read; the service does not start."""

    code = "invalid_beam_table"


class ListenError(ServiceError):
    """The address cannot be listened on; the service does not start."""

    code = "cannot_listen"


class TracesError(ServiceError):
    """What traces need is not installed; the service does not start."""

    code = "no_traces"


@dataclass(frozen=True)
class Status:
    """How an error is told over HTTP."""

    status: int
    title: str
    is_retryable: bool = False


STATUSES: dict[type[Exception], Status] = {
    InputError: Status(422, "The request cannot be answered as it stands"),
    UnknownColumnError: Status(422, "The catalog has no such column"),
    UnknownDomainError: Status(404, "The domain is not served"),
    UnknownItemError: Status(404, "The item is not in the catalog"),
    UnknownTemplateError: Status(404, "The template does not exist"),
    ValidationError: Status(422, "The request is not valid"),
    MalformedBodyError: Status(400, "The body is not JSON"),
    UnknownRouteError: Status(404, "No such path"),
    MethodError: Status(405, "The path does not take this method"),
    UnauthorizedError: Status(401, "The API key or the admin token is missing or wrong"),
    UnknownBundleError: Status(404, "There is no such bundle"),
    UnknownVersionError: Status(404, "No such version is loaded"),
    RevisionConflictError: Status(409, "It has been changed meanwhile"),
    OperationConflictError: Status(409, "The domain is in another state"),
    BundleError: Status(422, "The bundle breaks a rule"),
    IntegrityError: Status(422, "The bundle's files are not what its manifest says"),
    BackboneMismatchError: Status(422, "The bundle has another backbone"),
    CatalogError: Status(422, "The catalog breaks a rule"),
    UnsafeFileError: Status(422, "The file would execute code"),
    BodyTooLargeError: Status(413, "The body is too large"),
    BodyTimeoutError: Status(408, "The request came too slowly"),
    MalformedRequestError: Status(400, "The request is not HTTP as it must be"),
    HeadTooLargeError: Status(431, "The headers are too large"),
    ContentTypeError: Status(415, "The body must be JSON"),
    QueueFullError: Status(429, "Too many requests are waiting", is_retryable=True),
    OverloadedError: Status(429, "The deadline would pass in the queue", is_retryable=True),
    RateLimitedError: Status(429, "Too many requests from one client", is_retryable=True),
    ClientGoneError: Status(499, "The client closed the connection"),
    EngineError: Status(500, "The model failed at this request"),
    NotReadyError: Status(503, "The service is not ready", is_retryable=True),
    JournalError: Status(503, "Changes cannot be kept", is_retryable=True),
    DrainingError: Status(503, "The service is draining", is_retryable=True),
    DeadlineError: Status(504, "The deadline passed", is_retryable=True),
    Exception: Status(500, "The service failed at this request"),
}


REJECTED = frozenset({413, 429, 503, 504})
"""Statuses of requests that were turned away, by limits or by load."""

REJECTION_REASONS = tuple(
    sorted(kind.code for kind, status in STATUSES.items() if status.status in REJECTED and issubclass(kind, Vip5Error))
)


def status_of(error: Exception) -> Status:
    """The entry of the nearest class in the table."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def code_of(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return InputError.code
    return error.code if isinstance(error, Vip5Error) else Vip5Error.code


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem document of an error. What is not meant for a user is not told."""
    if isinstance(error, ValidationError):
        return validation_problem(error.errors(), request_id)
    status = status_of(error)
    is_told = isinstance(error, Vip5Error)
    field = error.field if isinstance(error, InputError) else None
    errors = [FieldError(field=field, message=str(error), code=code_of(error))] if field else None
    return Problem(
        type=f"urn:vip5:problem:{code_of(error)}",
        title=status.title,
        status=status.status,
        detail=str(error) if is_told else "An unexpected error; the log names its cause under this request_id.",
        code=code_of(error),
        request_id=request_id,
        retryable=status.is_retryable,
        errors=errors,
    )


def validation_problem(faults: Sequence[Fault], request_id: str) -> Problem:
    """The problem document of pydantic's list of faults, each of which has loc, msg, type and input."""
    errors = [_field_error(fault) for fault in faults[:MOST_FAULTS]]
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
    location = [_shortened(str(part)) for part in fault["loc"] if part not in ("body", "query", "path")]
    value = fault.get("input")
    message = fault["msg"]
    if isinstance(value, str | int | float | bool):
        message = f"{message}, but it is {_shortened(repr(value))}"
    return FieldError(field=".".join(location) or "body", message=message, code=fault["type"])


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
