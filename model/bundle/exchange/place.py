"""The address of a store of bundles."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from model.errors import BundleStoreError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://.+", re.IGNORECASE)
_NO_PLACE = re.compile(r"[a-z][a-z0-9+.-]*:/+|[a-z][a-z0-9+.-]+:/[^/].*", re.IGNORECASE)
"""A kind of store without a store, or with one slash only: not to be taken for a folder of that name."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}


def is_url(text: str) -> bool:
    """Whether the text is a URL rather than a path."""
    return _URL.fullmatch(text) is not None


@dataclass(frozen=True)
class StorePlace:
    """A store, and the bundle in it that is meant: the hash or its beginning after `#`, else the latest."""

    url: str
    bundle: str | None = None

    @classmethod
    def parse(cls, text: str) -> StorePlace:
        """Read `s3://bucket/folder`, `s3://bucket/folder#3fa2…`, or a folder's path. Raises BundleStoreError."""
        url, mark, bundle = text.partition("#")
        if not url.strip("/ ") or _NO_PLACE.fullmatch(url):
            raise BundleStoreError(f"{text!r} is no store of bundles; write a URL such as s3://bucket/bundles")
        if mark and re.fullmatch(r"[0-9a-f]{8,64}", bundle) is None:
            raise BundleStoreError(
                f"{text!r} names the bundle {bundle!r} after #; write at least 8 hexadecimal digits of its hash"
            )
        return cls(url.rstrip("/"), bundle or None)

    @property
    def name(self) -> str:
        """A file name for what belongs to this store on this machine."""
        return re.sub(r"[^A-Za-z0-9.-]+", "-", self.shown.partition("://")[2] or self.shown).strip("-.") or "store"

    @property
    def shown(self) -> str:
        """The URL without a user's name and password."""
        parts = urlsplit(self.url)
        if "@" not in parts.netloc:
            return self.url
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def connect(self) -> tuple[Any, str]:
        """The file system of fsspec, and the path in it. Raises BundleStoreError."""
        import fsspec  # takes its time, and only a store needs it

        try:
            files, root = fsspec.core.url_to_fs(self.url, **self._options())
        except ImportError as error:
            scheme = urlsplit(self.url).scheme
            extra = _EXTRAS.get(scheme)
            remedy = f'pip install "vip5-serve[{extra}]"' if extra else f"install the driver of fsspec for {scheme}"
            raise BundleStoreError(f"{self.shown} needs a library that is missing ({error}); {remedy}") from error
        except ValueError as error:
            raise BundleStoreError(
                f"{self.shown} cannot be read as a store: {error}; use file, s3, gs or https"
            ) from error
        return files, str(root).rstrip("/")

    def _options(self) -> dict[str, Any]:
        """What the driver needs beside the URL."""
        if urlsplit(self.url).scheme.lower() not in {"http", "https"}:
            return {}
        from model.bundle.exchange.redirections import open_session  # only web servers need aiohttp

        return {"get_client": partial(open_session, self.url), "skip_instance_cache": True}

    def upload(self, files: Any, local: str, path: str) -> None:  # noqa: ANN401  # fsspec has no types
        """Copy a local file to a path that nobody sees half-written."""
        self._whole(files, path, lambda place: files.put_file(local, place))

    def write(self, files: Any, path: str, content: bytes) -> None:  # noqa: ANN401  # likewise
        """Write a small file that nobody sees half-written."""
        self._whole(files, path, lambda place: files.pipe_file(place, content))

    def create(self, files: Any, path: str, content: bytes) -> None:  # noqa: ANN401  # likewise
        """Write a small file that nobody sees half-written, and that is not there. Raises FileExistsError if it is."""
        self.prepare(files, path)
        if not self._is_local(files):
            files.pipe_file(path, content, mode="create")
            return
        with _temporary(path) as temporary:
            files.pipe_file(temporary, content)
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                files.pipe_file(path, content, mode="create")

    def _whole(self, files: Any, path: str, put: Callable[[str], object]) -> None:  # noqa: ANN401  # likewise
        """Put a file into its place at once: stores of objects do so themselves, a folder by a rename."""
        self.prepare(files, path)
        if not self._is_local(files):
            put(path)
            return
        with _temporary(path) as temporary:
            put(temporary)
            Path(temporary).replace(path)

    @staticmethod
    def prepare(files: Any, path: str) -> None:  # noqa: ANN401  # likewise
        """Make the folders above a path, where there are folders."""
        if StorePlace._is_local(files) or "memory" in files.protocol:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)

    @staticmethod
    def _is_local(files: Any) -> bool:  # noqa: ANN401  # likewise
        return "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol)


@contextmanager
def _temporary(path: str) -> Iterator[str]:
    """A path beside this one. What is left there is removed, because it may be what fills the disk."""
    temporary = f"{path}.{secrets.token_hex(4)}"
    try:
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)
