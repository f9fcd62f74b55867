"""Answers of GET /domains and what lies below it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.schemas.base import AnswerBody, ItemId


class EncoderBody(AnswerBody):
    """The image encoder whose embeddings a domain reads."""

    name: str = Field(description="Its name.")
    dim: int = Field(description="Width of its embeddings.")


class TemplatesBody(AnswerBody):
    """Prompts by task."""

    sequential: list[str] = Field(description="For POST /recommend/sequential.")
    direct: list[str] = Field(description="For POST /recommend/direct.")
    explanation: list[str] = Field(description="For POST /explain.")


class DomainBody(AnswerBody):
    """A domain that is served."""

    name: str = Field(description="Its name.")
    bundle: str = Field(description="Hash of the bundle.")
    catalog_revision: int = Field(description="How often the catalog has been changed since it was loaded.")
    num_items: int = Field(description="Items in its catalog, inactive ones included.")
    num_active_items: int = Field(description="Items that may be recommended.")
    num_users: int | None = Field(description="Known users; null where the bundle has no table of users.")
    columns: list[str] = Field(description="Columns of the catalog that `where` can filter by.")
    encoder: EncoderBody | None = Field(description="Its image encoder; null for text-only prompts.")
    visual_tokens: int = Field(description="Tokens that an image becomes.")
    is_trained: bool = Field(description="Whether the weights were ever tuned.")
    templates: TemplatesBody = Field(description="The prompts that it takes.")
    default_templates: dict[str, str] = Field(description="The prompts used where a request names none.")


class DomainsAnswer(AnswerBody):
    """All domains."""

    domains: list[DomainBody] = Field(description="In the order of their names.")


class CatalogItem(AnswerBody):
    """An item of the catalog."""

    item_id: ItemId = Field(description="The shop's own id.")
    title: str | None = Field(description="Its title.")
    image: str | None = Field(description="Reference to its picture.")
    is_active: bool = Field(description="Whether it may be recommended.")
    attributes: dict[str, Any] = Field(description="Further columns, `category` included.")


class ItemsAnswer(AnswerBody):
    """A page of a catalog."""

    items: list[CatalogItem] = Field(description="In the catalog's order.")
    total: int = Field(description="Items that match in all.")
    offset: int = Field(description="Items skipped before this page.")


class KnownUser(AnswerBody):
    """A user that the domain knows."""

    user_id: str = Field(description="The shop's own id.")
    name: str | None = Field(description="Stands in the prompts that speak of the user by name.")


class UsersAnswer(AnswerBody):
    """A page of the known users."""

    users: list[KnownUser] = Field(description="In the table's order.")
    total: int = Field(description="Users that match in all.")
    offset: int = Field(description="Users skipped before this page.")
