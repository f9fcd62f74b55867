"""Bodies of POST /events and of a user's history."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag

from service.schemas import examples
from service.schemas.base import AnswerBody, DomainName, ItemId, RequestBody, UserId

MAX_EVENTS = 1_000
LATEST_S = 253_402_300_799
"""The end of the year 9999. Times in milliseconds are beyond it."""

NO_ZERO = r"^[^\x00]*$"
ShortText: TypeAlias = Annotated[str, Field(min_length=1, max_length=64, pattern=NO_ZERO)]


class EventBody(RequestBody):
    """What a user did with an item."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EVENT]})

    domain: DomainName = Field(description="The domain; GET /domains lists them.")
    user_id: Annotated[UserId, Field(pattern=NO_ZERO)] = Field(description="The shop's id of the user.")
    item_id: Annotated[ItemId, Field(pattern=NO_ZERO)] = Field(
        description="The shop's id of the item, which need not be in the catalog yet."
    )
    type: ShortText | None = Field(default=None, description="Kind of event, such as view or purchase; kept as given.")
    timestamp: Annotated[float, Field(ge=0, le=LATEST_S)] | None = Field(
        default=None, description="When it was, in seconds since 1970 (default: now). Kept to the millisecond."
    )
    event_id: Annotated[str, Field(min_length=1, max_length=128, pattern=NO_ZERO)] | None = Field(
        default=None,
        description="Identifies the event of the user, so that sending it again adds nothing (default: item and time).",
    )


EventList: TypeAlias = Annotated[list[EventBody], Field(min_length=1, max_length=MAX_EVENTS)]


ONE, LIST = FORMS = "(one event)", "(list of events)"
"""Pydantic's errors name the form of the body as if it were a field."""


def _form_of(body: object) -> str:
    return LIST if isinstance(body, list) else ONE


EventsBody: TypeAlias = Annotated[
    Annotated[EventBody, Tag(ONE)] | Annotated[EventList, Tag(LIST)], Discriminator(_form_of)
]
"""One event, or a list of them."""


class EventsAnswer(AnswerBody):
    """What became of the events."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EVENTS_ANSWER]})

    stored: int = Field(description="Number of events that are in histories now.")
    duplicates: int = Field(description="Number of events that were there already.")
    too_old: int = Field(
        description="Number of events that are not kept: past their lifetime, or older than all of a full history."
    )
    unknown_items: list[ItemId] = Field(description="Items of the events that are not in the catalog now.")


class HistoryEvent(AnswerBody):
    """An event of a user."""

    item_id: ItemId = Field(description="The shop's id of the item.")
    type: str | None = Field(description="Kind of event, if it was given.")
    timestamp: float = Field(description="When it was, in seconds since 1970.")
    event_id: str | None = Field(description="The event's id, if it was given.")


class HistoryAnswer(AnswerBody):
    """All that is kept of what a user did."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.HISTORY_ANSWER]})

    domain: str = Field(description="The domain.")
    user_id: str = Field(description="The user.")
    events: list[HistoryEvent] = Field(description="The user's events, oldest first; empty if there are none.")
    unknown_items: list[ItemId] = Field(description="Items of the events that are not in the catalog now.")


class ErasureAnswer(AnswerBody):
    """What was erased."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ERASURE_ANSWER]})

    erased_events: int = Field(description="Number of events that were kept; 0 if there were none.")
