"""Types of settings: what a value must be, and what is said about one that is not."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from limits import parse_many
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_settings import NoDecode

from model.bundle.exchange.place import StorePlace
from model.errors import BundleStoreError
from service.origins import origins_of

PREFIX = "VIP5_"
UNIX_PEER = "unix"
"""Stands for the clients of a Unix socket, which have no address."""
ROOT_PATH_PATTERN = r"^(/[A-Za-z0-9._~-]+)+$"
OWN_PATHS = frozenset(
    {
        "admin",
        "docs",
        "domains",
        "events",
        "explain",
        "health",
        "metrics",
        "openapi.json",
        "page",
        "recommend",
        "status",
        "v2",
    }
)
HOST_PATTERN = r"^(\*\.)?[A-Za-z0-9:._-]+$"


def _read_list(value: object) -> object:
    """A list from the environment, which is written as JSON."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ValueError('write a JSON list of texts, such as ["a", "b"]')  # noqa: TRY004  # as pydantic wants it
    return found


def _check_host(host: str) -> str:
    if not host:
        raise ValueError("an address is missing; use 127.0.0.1, or 0.0.0.0 or :: for all interfaces")
    return host.removeprefix("[").removesuffix("]")


def _check_root_path(path: str) -> str:
    path = path.rstrip("/")
    if path and re.fullmatch(ROOT_PATH_PATTERN, path) is None:
        raise ValueError(f"{path!r} is not a plain path; write it like /recommender")
    if path.split("/")[1:2] and path.split("/")[1] in OWN_PATHS:
        raise ValueError(f"{path!r} begins like a path of the service itself; choose another first part")
    return path


def _check_proxies(proxies: tuple[str, ...]) -> tuple[str, ...]:
    for each in proxies:
        try:
            _ = each == UNIX_PEER or ip_network(each, strict=False)
        except ValueError as error:
            raise ValueError(
                f"{each!r} is not an address; write addresses, networks such as 10.0.0.0/8, or {UNIX_PEER!r} for "
                "the clients of the Unix socket"
            ) from error
    return proxies


def _check_host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for each in names:
        if re.fullmatch(HOST_PATTERN, each) is None:
            raise ValueError(f"{each!r} is not a host name; write names without a port, or *.example.org")
    return names


def _check_path(path: object) -> object:
    if path == "":
        raise ValueError("a path is missing; write one, . for the folder that the service starts in, or unset it")
    return path


def _check_workers(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """One message in place of one for each of the types."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("write a number from 0 to 256, or auto") from error


def _check_store(store: str) -> str:
    try:
        StorePlace.parse(store)
    except BundleStoreError as error:
        raise ValueError(str(error)) from error
    return store


def _check_rate_limit(limits: str) -> str:
    try:
        parse_many(limits)
    except ValueError as error:
        raise ValueError(
            f"{limits!r} is not a rate limit; write a number per unit of time, such as 100/second, or several "
            "separated by ;"
        ) from error
    return limits


Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
File = Annotated[Path, BeforeValidator(_check_path)]
"""A file or a folder. An empty variable is not the folder that the service starts in."""
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_read_list)]
Host = Annotated[str, AfterValidator(_check_host)]
RootPath = Annotated[str, AfterValidator(_check_root_path)]
Proxies = Annotated[Texts, AfterValidator(_check_proxies)]
HostNames = Annotated[Texts, AfterValidator(_check_host_names)]
Workers = Annotated[Annotated[int, Field(ge=0, le=256)] | Literal["auto"], WrapValidator(_check_workers)]
Store = Annotated[str, AfterValidator(_check_store)]
RateLimit = Annotated[str, AfterValidator(_check_rate_limit)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(origins_of)]
