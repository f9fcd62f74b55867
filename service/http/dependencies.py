"""Dependencies of route functions: the service and the request's trace."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request
from starlette.convertors import PathConvertor, register_url_convertor

from model.errors import UnknownItemError
from model.planning.domain import ServedDomain
from service.answering.parts import Service
from service.errors import HistoriesDisabledError
from service.histories.opening import Histories
from service.http.app_state import state_of
from service.http.problems import trace_of
from service.observability.trace import RequestTrace


async def _trace_of(request: Request) -> RequestTrace:
    # A coroutine, because FastAPI runs plain functions in a thread, which costs a millisecond or more.
    return trace_of(request)


Trace = Annotated[RequestTrace, Depends(_trace_of)]

DomainPath = Annotated[str, Path(description="The domain; GET /domains lists them.", examples=["toys"])]


class _AnyText(PathConvertor):
    """The rest of a path, with line feeds: ids may have them, and Starlette's own pattern does not."""

    regex = "(?s:.*)"


register_url_convertor("path", _AnyText())

ItemPath = Annotated[str, Path(description="The shop's id of the item.", max_length=256, examples=["toy-0001"])]

UserPath = Annotated[
    str, Path(description="The shop's id of the user.", min_length=1, max_length=256, examples=["user-30001"])
]


def known_row(domain: ServedDomain, item_id: str) -> int:
    """The catalog row of an item. Raises UnknownItemError."""
    row = domain.catalog.row_of(item_id)
    if row is None:
        raise UnknownItemError(
            f"item {item_id[:100]!r} is not in the catalog of {domain.name}; see GET /domains/{domain.name}/items",
            field="item_id",
        )
    return row


def histories_of(service: Service) -> Histories:
    """Raises HistoriesDisabledError."""
    if service.histories is None:
        raise HistoriesDisabledError(
            "this service keeps no histories; the operator can set VIP5_HISTORY_STORE to embedded or redis"
        )
    return service.histories


def service_of(request: Request) -> Service:
    return state_of(request.app).service


def ready_service_of(request: Request) -> Service:
    """Raises NotReadyError and DrainingError."""
    state = state_of(request.app)
    state.readiness.require()
    return state.service
