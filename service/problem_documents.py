"""The table that maps every error to an HTTP status, and the problem document of an error.

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
    BundleStoreError,
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
from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ChangeTimeoutError,
    ClientDisconnectedError,
    ContentTypeError,
    CrossOriginError,
    DeadlineError,
    DrainingError,
    ForbiddenError,
    HeadTooLargeError,
    HistoriesDisabledError,
    HistoriesUnavailableError,
    JournalBrokenError,
    JournalError,
    LoadTooLargeError,
    MalformedBodyError,
    MalformedRequestError,
    MethodError,
    NoHistoryError,
    NotReadyError,
    OperationConflictError,
    OverloadedError,
    QueueFullError,
    RangeError,
    RateLimitedError,
    ReplicasDifferError,
    RevisionConflictError,
    TooManyConnectionsError,
    UnauthorizedError,
    UnknownBundleError,
    UnknownHostError,
    UnknownPictureError,
    UnknownRouteError,
    UnknownVersionError,
)
from service.schemas.events import FORMS
from service.schemas.problem import FieldError, Problem

MAX_VALUE_LENGTH = 60
MAX_FIELD_ERRORS = 100
"""Most errors reported for one body, so that an answer is not much longer than the request."""

Fault: TypeAlias = Mapping[str, Any]
"""One of pydantic's errors, with `loc`, `msg`, `type` and `input`."""


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
    HistoriesDisabledError: Status(409, "The service keeps no histories"),
    NoHistoryError: Status(404, "The user has no history"),
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
    BundleStoreError: Status(502, "The store of bundles failed"),
    BodyTooLargeError: Status(413, "The body is too large"),
    LoadTooLargeError: Status(413, "The request is more than can ever be admitted at once"),
    BodyTimeoutError: Status(408, "The request came too slowly"),
    MalformedRequestError: Status(400, "The request is not HTTP as it must be"),
    HeadTooLargeError: Status(431, "The headers are too large"),
    ContentTypeError: Status(415, "The body must be JSON"),
    RangeError: Status(416, "The range is behind the end"),
    QueueFullError: Status(429, "Too many requests are waiting", is_retryable=True),
    OverloadedError: Status(429, "The deadline would pass in the queue", is_retryable=True),
    RateLimitedError: Status(429, "Too many requests from one client", is_retryable=True),
    ClientDisconnectedError: Status(499, "The client closed the connection"),
    EngineError: Status(500, "The model failed at this request"),
    TooManyConnectionsError: Status(503, "Too many connections are open", is_retryable=True),
    NotReadyError: Status(503, "The service is not ready", is_retryable=True),
    HistoriesUnavailableError: Status(503, "Histories cannot be reached", is_retryable=True),
    JournalError: Status(503, "Changes cannot be kept", is_retryable=True),
    JournalBrokenError: Status(503, "The journal is another one or damaged", is_retryable=True),
    DrainingError: Status(503, "The service is draining", is_retryable=True),
    ChangeTimeoutError: Status(504, "The change waited too long", is_retryable=True),
    ReplicasDifferError: Status(504, "The change is made, and not all replicas serve it"),
    DeadlineError: Status(504, "The deadline passed", is_retryable=True),
    Exception: Status(500, "The service failed at this request"),
}


REJECTED = frozenset({413, 429, 503, 504})
"""Statuses of requests that were rejected for size, load or time."""

WORKED_FOR = frozenset(kind.code for kind in (ClientDisconnectedError, DeadlineError, EngineError, Vip5Error))
"""Errors of requests that the engine may have worked for. Others are refusals, before the engine."""

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
    if isinstance(error, ReplicasDifferError):
        errors = [
            FieldError(field=f"replicas.{each.name}", message=each.reason, code=each.state) for each in error.replicas
        ]
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


_NO_FIELDS = frozenset(("body", "query", "path", *FORMS))
"""Parts of the locations of pydantic's errors that no caller has written."""


def _field_error(fault: Fault) -> FieldError:
    location = [_truncated(str(part)) for part in fault["loc"] if part not in _NO_FIELDS]
    value = fault.get("input")
    message = fault["msg"].removeprefix("Value error, ")
    if isinstance(value, str | int | float | bool):
        message = f"{message}; got {_truncated(repr(value))}"
    return FieldError(field=".".join(location) or "body", message=message, code=fault["type"])


def _truncated(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else text[:MAX_VALUE_LENGTH] + "…"
