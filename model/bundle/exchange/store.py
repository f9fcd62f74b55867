"""A store of bundles at a URL: a folder, S3, Google Cloud Storage, or whatever fsspec has a driver for.

    objects/<sha256>                   the files of all bundles, each once
    bundles/<hash>/manifest.json       and manifest.json.sig: a bundle, complete since its objects came first
    latest/<number>                    the hash that the pointer named from then on; the greatest number counts
    latest.json                        the same for stores that cannot list, such as a web server's

Objects never change. The pointer moves by making the file of the next number, which exactly one of several writers can
do, so that a store needs no other way to compare and set.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from model.bundle.exchange.place import StorePlace
from model.bundle.layout import MANIFEST, SIGNATURES
from model.errors import BundleStoreError, Vip5Error

BUNDLE_HASH = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{8}")
_POINTER = "latest.json"
_MOST_DOCUMENT_BYTES = 16 << 20
_PIECE = 1 << 20
_COPY_ATTEMPTS = 10
"""The pointer moves much more rarely than it can be copied."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pointer:
    """What `latest` names: a bundle's hash, and the number of changes so far; 0 and no hash in a new store."""

    hash: str | None
    number: int


class BundleStore:
    """Reads and writes one store. All methods raise BundleStoreError if the store fails or refuses."""

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self._files, self._root = place.connect()

    def __str__(self) -> str:
        return self._place.shown

    def size_of_object(self, sha256: str) -> int | None:
        """Its bytes; None if the store lacks it."""
        path = self._path("objects", sha256)
        with self._asking(f"look up {path}"):
            try:
                size = self._files.info(path)["size"]
            except FileNotFoundError as error:
                if isinstance(error.__cause__, BundleStoreError):  # fsspec takes any failure for this
                    raise error.__cause__ from None
                return None
        return None if size is None else int(size)

    def put_object(self, sha256: str, local: str) -> None:
        """Upload a file, which is there under its name only when it is complete."""
        path = self._path("objects", sha256)
        with self._asking(f"write {path}"):
            self._place.upload(self._files, local, path)

    def remove_object(self, sha256: str) -> None:
        path = self._path("objects", sha256)
        with self._asking(f"remove {path}"):
            self._files.rm_file(path)

    def read_object(self, sha256: str, start: int, end: int) -> bytes:
        """Bytes start to end; at most one more if the store sends others."""
        path = self._path("objects", sha256)
        with self._asking(f"read {path}"):
            return self._bytes(path, start, end)

    def find(self, beginning: str) -> str:
        """The hash of the bundle that begins like this. Raises BundleStoreError unless there is exactly one."""
        if BUNDLE_HASH.fullmatch(beginning):
            return beginning
        path = self._path("bundles")
        with self._asking(f"list {path}"):
            try:
                names = self._files.ls(path, detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                names = []
        hashes: set[str] = {each.rstrip("/").rpartition("/")[2] for each in names}
        found: list[str] = sorted(each for each in hashes if BUNDLE_HASH.fullmatch(each) and each.startswith(beginning))
        if len(found) != 1:
            what = f"several bundles, {', '.join(found)}" if found else "no bundle"
            raise BundleStoreError(f"{self} has {what} whose hash begins with {beginning}; give the whole hash")
        return found[0]

    def put_bundle(self, bundle: str, manifest: bytes, signatures: bytes | None) -> None:
        """Announce a bundle, all of whose objects are there."""
        documents = [(SIGNATURES.name, signatures), (MANIFEST.name, manifest)]
        for name, content in documents:
            if content is not None:
                self._write("bundles", bundle, name, content=content)

    def read_manifest(self, bundle: str) -> bytes:
        found = self._read("bundles", bundle, MANIFEST.name)
        if found is None:
            raise BundleStoreError(f"{self} has no bundle {bundle}; push it first, or name another")
        return found

    def read_signatures(self, bundle: str) -> bytes | None:
        return self._read("bundles", bundle, SIGNATURES.name)

    def latest(self) -> Pointer:
        number = max(self._numbers(), default=0)
        if not number:
            return self._copy_of_pointer()
        found = self._read("latest", f"{number:08}")
        return Pointer(self._hash_in(found or b"", f"latest/{number:08}"), number)

    def move_latest(self, bundle: str, before: Pointer) -> None:
        """Let `latest` name a bundle, if it is as it was `before`.

        Raises BundleStoreError if it has moved since, unless to the same bundle.
        """
        path = self._path("latest", f"{before.number + 1:08}")
        content = _document_of(Pointer(bundle, before.number + 1))
        try:
            with self._asking(f"write {path}", passes=FileExistsError):
                self._place.create(self._files, path, content)
        except FileExistsError:
            now = self.latest().hash
            if now == bundle:
                return
            raise BundleStoreError(
                f"latest of {self} was {before.hash or 'unset'} and is now {now}, moved by somebody else; look at it, "
                "and push again"
            ) from None
        self.copy_latest()

    def copy_latest(self) -> None:
        """Let `latest.json` name what `latest` does, also if others move it meanwhile, or were stopped before this."""
        for _ in range(_COPY_ATTEMPTS):
            now = self.latest()
            if now.hash is None or self._read(_POINTER) == _document_of(now):
                return
            self._write(_POINTER, content=_document_of(now))

    def _numbers(self) -> Iterator[int]:
        path = self._path("latest")
        with self._asking(f"list {path}"):
            try:
                names = self._files.ls(path, detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return
            except NotImplementedError:  # a web server, say
                return
        yield from (int(name) for each in names if _NUMBER.fullmatch(name := each.rstrip("/").rpartition("/")[2]))

    def _copy_of_pointer(self) -> Pointer:
        found = self._read(_POINTER)
        if found is None:
            return Pointer(None, 0)
        number = _document(found).get("number", 0)
        if not isinstance(number, int) or number < 0:
            raise BundleStoreError(f"{_POINTER} of {self} has the number {number!r}; remove it, and push again")
        return Pointer(self._hash_in(found, _POINTER), number)

    def _hash_in(self, content: bytes, name: str) -> str:
        found = _document(content).get("bundle")
        if not isinstance(found, str) or BUNDLE_HASH.fullmatch(found) is None:
            raise BundleStoreError(f"{name} of {self} names no bundle; remove it, and push again")
        return found

    def _write(self, *parts: str, content: bytes) -> None:
        path = self._path(*parts)
        with self._asking(f"write {path}"):
            self._place.write(self._files, path, content)

    def _read(self, *parts: str) -> bytes | None:
        path = self._path(*parts)
        with self._asking(f"read {path}"):
            try:
                found = self._bytes(path, 0, _MOST_DOCUMENT_BYTES)
            except FileNotFoundError:
                return None
        if len(found) > _MOST_DOCUMENT_BYTES:
            raise BundleStoreError(f"{path} has more than {_MOST_DOCUMENT_BYTES} bytes; do not trust {self}")
        return found

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _bytes(self, path: str, start: int, end: int) -> bytes:
        """A part of a file. What a web server sends beyond it is not read: it need not keep to what was asked for."""
        if "http" not in self._files.protocol:
            return bytes(self._files.cat_file(path, start=start, end=end))
        headers = {**self._files.kwargs.get("headers", {}), "Range": f"bytes={start}-{end - 1}"}
        found = bytearray()
        with self._files.open(path, block_size=0, size=end, headers=headers) as stream:
            while len(found) <= end - start and (piece := stream.read(min(_PIECE, end - start + 1 - len(found)))):
                found += piece
        return bytes(found)

    @contextmanager
    def _asking(self, doing: str, passes: type[Exception] = Vip5Error) -> Iterator[None]:
        """Turn the errors of any driver, but `passes`, into one that says what failed where."""
        try:
            yield
        except (Vip5Error, passes):
            raise
        except Exception as error:  # noqa: BLE001  # each driver has errors of its own
            self._fail(doing, error)

    def _fail(self, doing: str, error: Exception) -> NoReturn:
        reason = " ".join(str(error).split()) or type(error).__name__
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some" if is_full else "check the address, the credentials and the network"
        raise BundleStoreError(f"{self}: cannot {doing}: {reason}; {remedy}") from error


def _document_of(pointer: Pointer) -> bytes:
    return json.dumps({"bundle": pointer.hash, "number": pointer.number}).encode() + b"\n"


def _document(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def retried(attempt: Callable[[], T], attempts: int = 3) -> T:
    """What the first attempt that does not fail returns. Raises the last one's BundleStoreError."""
    for _ in range(attempts - 1):
        try:
            return attempt()
        except BundleStoreError:
            continue
    return attempt()
