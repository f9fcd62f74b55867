"""Answers of GET /domains and the paths below it."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from service.schemas import examples
from service.schemas.base import AnswerBody, ItemId


class EncoderBody(AnswerBody):
    """The image encoder of a domain."""

    name: str = Field(description="The encoder's name.")
    dim: int = Field(description="Width of its embeddings.")


class TemplatesBody(AnswerBody):
    """Prompt templates by task."""

    sequential: list[str] = Field(description="For POST /recommend/sequential.")
    direct: list[str] = Field(description="For POST /recommend/direct.")
    explanation: list[str] = Field(description="For POST /explain.")


class DomainBody(AnswerBody):
    """A served domain."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DOMAIN_ANSWER]})

    name: str = Field(description="The domain's name.")
    bundle: str = Field(description="Hash of the bundle.")
    catalog_revision: int = Field(description="Number of changes made to the catalog since it was loaded.")
    num_items: int = Field(description="Items in its catalog, including inactive ones.")
    num_active_items: int = Field(description="Items that may be recommended.")
    num_users: int | None = Field(description="Known users; null if the bundle has no users table.")
    roles: dict[str, str] = Field(description="The versions that answer requests, by role: `stable` and `canary`.")
    columns: list[str] = Field(description="Catalog columns that `where` can filter by.")
    encoder: EncoderBody | None = Field(description="Its image encoder; null if prompts are text only.")
    visual_tokens: int = Field(description="Visual tokens per image.")
    is_trained: bool = Field(description="Whether the weights were trained.")
    templates: TemplatesBody = Field(description="The available prompt templates.")
    default_templates: dict[str, str] = Field(description="The prompt templates used if a request names none.")


class DomainsAnswer(AnswerBody):
    """All domains."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DOMAINS_ANSWER]})

    domains: list[DomainBody] = Field(description="Sorted by name.")


class CatalogItem(AnswerBody):
    """An item of the catalog."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ITEM]})

    item_id: ItemId = Field(description="The shop's id.")
    index: str = Field(description="The identifier that the model generates for it.")
    title: str | None = Field(description="The item's title.")
    image: str | None = Field(description="The item's image reference.")
    is_active: bool = Field(description="Whether it may be recommended.")
    attributes: dict[str, Any] = Field(description="All other columns, including `category`.")


class ItemsAnswer(AnswerBody):
    """A page of a catalog."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ITEMS_ANSWER]})

    items: list[CatalogItem] = Field(description="In catalog order.")
    total: int = Field(description="Total number of matching items.")
    offset: int = Field(description="Number of items before this page.")


class ColumnValue(AnswerBody):
    """A value of a column."""

    value: str | bool | int | float = Field(description="The value, as `where` takes it.")
    num_items: int = Field(description="Items that have it.")


class ColumnBody(AnswerBody):
    """A column that `where` can filter by."""

    name: str = Field(description="The column's name.")
    values: list[ColumnValue] = Field(description="The most frequent values first; at most 50.")
    num_values: int = Field(description="Number of different values.")


class ColumnsAnswer(AnswerBody):
    """The columns of a catalog."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COLUMNS_ANSWER]})

    columns: list[ColumnBody] = Field(description="In the catalog's order.")


class KnownUser(AnswerBody):
    """A user in the domain's users table."""

    user_id: str = Field(description="The shop's id.")
    name: str | None = Field(description="The name used in prompts.")


class UsersAnswer(AnswerBody):
    """A page of the known users."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.USERS_ANSWER]})

    users: list[KnownUser] = Field(description="In table order.")
    total: int = Field(description="Total number of matching users.")
    offset: int = Field(description="Number of users before this page.")
