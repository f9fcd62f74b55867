"""API keys: who may ask, told apart by the digests of their keys, which a file holds and may change at any time.

A line of the file is `{"id": "shop", "sha256": "…"}`; while a client changes to a new key, two lines have its id. The
digest is a plain SHA-256: keys are 256 random bits, of which no guessing gets through any part, so that a slow hash,
which makes guessable passwords safer, would only make every request slower. Knows no web framework.
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
KEY_PREFIX = "vip5_"  # tells what was leaked to those who search code and logs for secrets
NUM_KEY_BYTES = 32
MOST_FILE_BYTES = 1 << 20
SCHEME = "bearer"

Signature: TypeAlias = tuple[int, int, int]


class KeyLine(BaseModel):
    """A line of the file: who has the key, and its digest."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class NewKey:
    """A key, to be told once, and the line that is kept of it."""

    key: str
    line: str


def new_key(key_id: str) -> NewKey:
    """A random key of a client. Raises ApiKeysError for an id that cannot be one."""
    key = KEY_PREFIX + secrets.token_urlsafe(NUM_KEY_BYTES)
    try:
        line = KeyLine(id=key_id, sha256=_digest_of(key))
    except ValidationError as error:
        raise ApiKeysError(
            f"{key_id!r} cannot be the id of a key; take up to 64 letters, digits, dots, hyphens and underscores"
        ) from error
    return NewKey(key, line.model_dump_json())


class ApiKeys:
    """The keys of a file, read anew as soon as it has changed; one that cannot be read leaves the last good keys."""

    def __init__(self, path: Path) -> None:
        """Raises ApiKeysError."""
        self._path = path
        self._signature = _signature_of(path)
        self._lines = _read(path)
        self._problem: str | None = None

    @property
    def problems(self) -> Sequence[str]:
        """Why the keys are not those of the file, if they are not."""
        self._refresh()
        return () if self._problem is None else (self._problem,)

    def check(self, authorization: str | None, api_key: str | None) -> str:
        """The id of whoever has the key that an Authorization or X-API-Key header gives. Raises UnauthorizedError."""
        self._refresh()
        given = _digest_of(_given(authorization, api_key))
        found: str | None = None
        for line in self._lines:  # all of them, whichever fits, so that the time tells nothing
            if hmac.compare_digest(line.sha256, given):
                found = line.id
        if found is None:
            raise UnauthorizedError(
                "this needs an API key, which is missing or not valid; send it as Authorization: Bearer KEY, or as "
                "X-API-Key: KEY"
            )
        return found

    def _refresh(self) -> None:
        """A look at the file's time costs a few microseconds, and a key that was taken away must not open any more."""
        try:
            signature = _signature_of(self._path)
            if signature == self._signature:
                return
            self._lines = _read(self._path)
        except ApiKeysError as error:
            if self._problem != str(error):
                logger.error("api_keys_refused", extra={"reason": str(error)})  # noqa: TRY400  # the reason is enough
            self._problem = str(error)
            return
        self._signature, self._problem = signature, None
        logger.info("api_keys_read", extra={"num_keys": len(self._lines)})


def _given(authorization: str | None, api_key: str | None) -> str:
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == SCHEME:
        return credentials.strip()
    return (api_key or "").strip()


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _signature_of(path: Path) -> Signature:
    try:
        found = os.stat(path)  # noqa: PTH116  # pathlib's takes twice as long, at every request
    except OSError as error:
        raise ApiKeysError(f"the file of API keys {path} cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> tuple[KeyLine, ...]:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise ApiKeysError(f"the file of API keys {path} cannot be read: {error.strerror}") from error
    if len(content) > MOST_FILE_BYTES:
        raise ApiKeysError(f"the file of API keys {path} is longer than {MOST_FILE_BYTES} bytes; take keys out of it")
    lines = tuple(_line_of(path, place, text) for place, text in enumerate(content.splitlines(), 1) if text.strip())
    if not lines:
        raise ApiKeysError(f"the file of API keys {path} holds no key; add a line of vip5 keys new --id NAME")
    if len({line.sha256 for line in lines}) < len(lines):
        raise ApiKeysError(f"the file of API keys {path} holds a key twice; make one for each with vip5 keys new")
    return lines


def _line_of(path: Path, place: int, text: bytes) -> KeyLine:
    try:
        return KeyLine.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise ApiKeysError(
            f"line {place} of the file of API keys {path} is not as vip5 keys new writes it: {where}: {fault['msg']}"
        ) from None  # the cause would quote the line, which may be a key that was put there by mistake
