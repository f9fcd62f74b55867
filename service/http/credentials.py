"""Credentials in a file of digests, which may change at any time.

A line of the file is a JSON object with at least `{"id": "shop", "sha256": "…"}`; several lines share an id while a
client rotates its secret. The digest is plain SHA-256: secrets are 256 random bits, so brute force is infeasible, and a
slow password hash would only slow requests down. Knows no web framework.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from service.errors import ApiKeysError

logger = logging.getLogger(__name__)

ID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
NUM_SECRET_BYTES = 32
MAX_FILE_BYTES = 1 << 20

Signature: TypeAlias = tuple[int, int, int, int]
"""Times of the last changes of content and of the inode, size and inode: a copy can keep the first of them."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Credential(BaseModel):
    """A line of the file: whose secret it is, and the secret's digest."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @field_validator("sha256")
    @classmethod
    def _check_digest(cls, digest: str) -> str:
        if digest == digest_of(""):
            raise ValueError("it is the digest of an empty secret, which would admit requests without one")
        return digest


C = TypeVar("C", bound=Credential)


@dataclass(frozen=True)
class Kind(Generic[C]):
    """What a file holds, for its messages."""

    line_type: type[C]
    noun: str
    """Such as `API keys`."""
    command: str
    """What makes a line."""
    event: str
    """Beginning of the names of log lines."""


def new_secret(prefix: str) -> str:
    """A random secret. The prefix lets secret scanners recognise a leaked one."""
    return prefix + secrets.token_urlsafe(NUM_SECRET_BYTES)


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class _UnsuitableError(ApiKeysError):
    """What the path names cannot hold credentials until it changes."""


class CredentialsFile(Generic[C]):
    """The credentials of a file, reloaded when it changes.

    What the file no longer says is revoked at once: an empty or removed file admits nobody, and an invalid line admits
    nobody and voids no other line. Only while the file exists but cannot be read, the credentials that it had stay.
    """

    def __init__(self, path: Path, kind: Kind[C]) -> None:
        """Raises ApiKeysError for a file that cannot be read or has an invalid line."""
        self._path = path
        self._kind = kind
        self._unsuitable: Signature | None = None
        try:
            self._signature: Signature | None = self._stat()
            lines, problems = self._read()
        except FileNotFoundError as error:
            raise self._unreadable(error) from error
        if problems:
            raise ApiKeysError(problems[0])
        self._lines = lines
        self._problems: tuple[str, ...] = ()
        self._report(self._problems_with(problems))

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with the file."""
        self._refresh()
        return self._problems

    def find(self, secret: str) -> C | None:
        """The line of a secret; None for an empty or unknown one."""
        self._refresh()
        # Looked up, not compared in constant time: nobody can choose a digest's bytes, so the time tells nothing.
        return self._lines.get(digest_of(secret)) if secret else None

    def _refresh(self) -> None:
        """Reload a changed file. The check costs microseconds, so every request makes it: revocation is immediate."""
        try:
            signature = self._stat()
            if signature in (self._signature, self._unsuitable):
                return
            lines, problems = self._read()
        except FileNotFoundError:
            if self._signature is None:
                return
            signature, lines, problems = None, {}, ()
        except _UnsuitableError as error:
            self._unsuitable = signature  # not read again with every request
            self._report((str(error),))
            return
        except ApiKeysError as error:
            self._report((str(error),))
            return
        self._unsuitable = None
        self._lines, self._signature = lines, signature
        logger.info("%s_read", self._kind.event, extra={"num_keys": len(lines)})
        self._report(self._problems_with(problems))

    def _report(self, problems: tuple[str, ...]) -> None:
        for problem in problems:
            if problem not in self._problems:
                logger.error("%s_refused", self._kind.event, extra={"reason": problem})
        self._problems = problems

    def _problems_with(self, problems: tuple[str, ...]) -> tuple[str, ...]:
        if self._lines or problems:
            return problems
        state = "is missing" if self._signature is None else "is empty"
        return (f"{self._name} {state}, so nobody is admitted; add a line made by {self._kind.command}",)

    @property
    def _name(self) -> str:
        return f"the {self._kind.noun} file {self._path.name}"

    def _stat(self) -> Signature:
        """Raises FileNotFoundError, and ApiKeysError for other faults."""
        try:
            found = os.stat(self._path)  # noqa: PTH116  # twice as fast as Path.stat, on every request
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(error) from error
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[dict[str, C], tuple[str, ...]]:
        """The valid lines by digest, and what is wrong with the others.

        Raises FileNotFoundError, and ApiKeysError for a file that cannot be read or is too large.
        """
        try:
            # Without O_NONBLOCK, a pipe would be waited for.
            with open(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise _UnsuitableError(f"{self._name} is not a regular file; give one")
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(error) from error
        if len(content) > MAX_FILE_BYTES:
            raise _UnsuitableError(f"{self._name} is larger than {MAX_FILE_BYTES} bytes; remove lines")
        lines: dict[str, C] = {}
        problems: list[str] = []
        for number, text in enumerate(content.removeprefix(BYTE_ORDER_MARK).splitlines(), 1):
            if not text.strip():
                continue
            line = self._line_of(number, text)
            if isinstance(line, str):
                problems.append(line)
            elif line.sha256 in lines:
                problems.append(
                    f"line {number} of {self._name} has the same secret as another line; make one for each client with "
                    f"{self._kind.command}"
                )
            else:
                lines[line.sha256] = line
        return lines, tuple(problems)

    def _line_of(self, number: int, text: bytes) -> C | str:
        """A line, or what is wrong with it. Never quotes it, because it may be a secret put there by mistake."""
        try:
            return self._kind.line_type.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors(include_input=False)[0]
            field = ".".join(map(str, fault["loc"])) or "the line"
            return (
                f"line {number} of {self._name} is invalid and admits nobody: {field}: {fault['msg']}; make lines with "
                f"{self._kind.command}"
            )

    def _unreadable(self, error: OSError) -> ApiKeysError:
        return ApiKeysError(f"{self._name} cannot be read: {error.strerror}")
