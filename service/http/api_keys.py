"""API keys, compared by digest. Their file may change at any time.

A line of the file is `{"id": "shop", "sha256": "…"}`; two lines share an id while a client rotates its key. The digest
is plain SHA-256: keys are 256 random bits, so brute force is infeasible, and a slow password hash would only slow
requests down. Knows no web framework.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ApiKeysError, UnauthorizedError

logger = logging.getLogger(__name__)

ID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
KEY_PREFIX = "vip5_"  # lets secret scanners recognise a leaked key
NUM_KEY_BYTES = 32
MAX_FILE_BYTES = 1 << 20
SCHEME = "bearer"

Signature: TypeAlias = tuple[int, int, int]


class KeyLine(BaseModel):
    """A line of the file: the client's id and the digest of its key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class NewKey:
    """A new key, to be shown once, and its line in the file."""

    key: str
    line: str


def new_key(key_id: str) -> NewKey:
    """A random key for a client. Raises ApiKeysError if the id is invalid."""
    key = KEY_PREFIX + secrets.token_urlsafe(NUM_KEY_BYTES)
    try:
        line = KeyLine(id=key_id, sha256=_digest_of(key))
    except ValidationError as error:
        raise ApiKeysError(
            f"{key_id!r} is not a valid key id; use 1 to 64 letters, digits, dots, hyphens and underscores"
        ) from error
    return NewKey(key, line.model_dump_json())


class ApiKeys:
    """The keys of a file, reloaded when it changes. The last valid keys stay in use while the file is invalid."""

    def __init__(self, path: Path) -> None:
        """Raises ApiKeysError."""
        self._path = path
        self._signature = _signature_of(path)
        self._lines = _read(path)
        self._problem: str | None = None

    @property
    def problems(self) -> Sequence[str]:
        """Why the file's current content is not in use, if so."""
        self._refresh()
        return () if self._problem is None else (self._problem,)

    def check(self, authorization: str | None, api_key: str | None) -> str:
        """The id of the client whose key is in the Authorization or X-API-Key header. Raises UnauthorizedError."""
        self._refresh()
        digest = _digest_of(_presented_key(authorization, api_key))
        found: str | None = None
        for line in self._lines:  # no early exit: the time must not depend on which key matches
            if hmac.compare_digest(line.sha256, digest):
                found = line.id
        if found is None:
            raise UnauthorizedError(
                "the API key is missing or invalid; send it as Authorization: Bearer KEY or X-API-Key: KEY"
            )
        return found

    def _refresh(self) -> None:
        """Reload a changed file. The check costs microseconds, so every request makes it: revocation is immediate."""
        try:
            signature = _signature_of(self._path)
            if signature == self._signature:
                return
            self._lines = _read(self._path)
        except ApiKeysError as error:
            if self._problem != str(error):
                logger.error("api_keys_refused", extra={"reason": str(error)})  # noqa: TRY400  # a traceback would add nothing
            self._problem = str(error)
            return
        self._signature, self._problem = signature, None
        logger.info("api_keys_read", extra={"num_keys": len(self._lines)})


def _presented_key(authorization: str | None, api_key: str | None) -> str:
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == SCHEME:
        return credentials.strip()
    return (api_key or "").strip()


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _signature_of(path: Path) -> Signature:
    try:
        found = os.stat(path)  # noqa: PTH116  # twice as fast as Path.stat, on every request
    except OSError as error:
        raise ApiKeysError(f"the API keys file {path} cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> tuple[KeyLine, ...]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ApiKeysError(f"the API keys file {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ApiKeysError(f"the API keys file {path} is larger than {MAX_FILE_BYTES} bytes; remove keys")
    lines = tuple(_line_of(path, number, text) for number, text in enumerate(content.splitlines(), 1) if text.strip())
    if not lines:
        raise ApiKeysError(f"the API keys file {path} contains no key; add a line printed by vip5 keys new --id NAME")
    if len({line.sha256 for line in lines}) < len(lines):
        raise ApiKeysError(
            f"the API keys file {path} contains the same key twice; create one per client with vip5 keys new"
        )
    return lines


def _line_of(path: Path, number: int, text: bytes) -> KeyLine:
    try:
        return KeyLine.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        field = ".".join(map(str, fault["loc"])) or "the line"
        raise ApiKeysError(
            f"line {number} of the API keys file {path} is invalid: {field}: {fault['msg']}; create lines with "
            "vip5 keys new"
        ) from None  # the cause would quote the line, which may be a key put there by mistake
