"""Errors that cross from the engine process to a worker, by code."""

from __future__ import annotations

from collections.abc import Iterator

from model.errors import EngineError, InputError, Vip5Error
from service.channel.messages import Failed
from service.errors import ServiceError


def failure_message(request: int, error: BaseException) -> Failed:
    """What a worker is told of a request's error; the log has the rest."""
    if isinstance(error, Vip5Error):
        retry_after_s = error.retry_after_s if isinstance(error, ServiceError) else None
        return Failed(request, error.code, str(error), retry_after_s)
    message = "the model failed on this request; find the cause in the log under its request_id"
    return Failed(request, EngineError.code, message, None)


def error_of(code: str, message: str, retry_after_s: int | None) -> Vip5Error:
    """The error as it was raised in the engine process."""
    kind = _KINDS.get(code, EngineError)
    return kind(message, retry_after_s=retry_after_s) if issubclass(kind, ServiceError) else kind(message)


def _all_kinds(kind: type[Vip5Error]) -> Iterator[type[Vip5Error]]:
    for each in kind.__subclasses__():
        yield each
        yield from _all_kinds(each)


# A class comes before its subclasses, which may have its code. InputErrors name a field: they arise in workers.
_KINDS: dict[str, type[Vip5Error]] = {}
for _kind in _all_kinds(Vip5Error):
    if not issubclass(_kind, InputError):
        _KINDS.setdefault(_kind.code, _kind)
