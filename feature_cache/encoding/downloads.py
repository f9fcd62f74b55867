"""Pictures from the web, cached in a folder so that each is fetched once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.util import parse_url

from feature_cache.encoding.addresses import AllowedHosts
from feature_cache.encoding.connections import pool_manager
from feature_cache.encoding.pictures import MAX_BYTES, read_file
from feature_cache.encoding.sources import PictureError

_OK = 200
_REDIRECTIONS = (301, 302, 303, 307, 308)
_BUSY = (429, 500, 502, 503, 504)
_MAX_REDIRECTIONS = 5
_MAX_TRIES = 5
_MAX_PAUSE_S = 10.0
_MAX_SECONDS = 120.0  # for one picture, with all tries
_CHUNK_BYTES = 1 << 16
_ACCEPT = "image/avif, image/webp, image/png, image/jpeg, image/gif, image/bmp, image/tiff"


class Downloads:
    """A folder of downloaded pictures, named by the sha256 of their URLs. Processes may share it."""

    def __init__(
        self,
        folder: Path,
        *,
        allowed_hosts: AllowedHosts = AllowedHosts(),  # noqa: B008 - immutable
        num_connections: int = 16,
        backoff_s: float = 0.5,
    ) -> None:
        """`backoff_s` is the pause before the first retry of a failed request; it doubles with each retry."""
        self._folder = folder
        self._allowed_hosts = allowed_hosts
        self._num_connections = num_connections
        self._backoff_s = backoff_s

    @property
    def num_connections(self) -> int:
        return self._num_connections

    def read(self, url: str) -> bytes:
        """The picture's bytes, from the folder or the web. Raises PictureError."""
        digest = hashlib.sha256(url.encode()).hexdigest()
        path = self._folder / digest[:2] / digest
        if not path.exists():
            self._fetch(url, path)
        return read_file(path)

    def _fetch(self, url: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                self._download(url, file)
            Path(name).rename(path)
        except (HTTPError, ValueError) as error:
            raise PictureError(f"it cannot be downloaded ({error})") from error
        finally:
            Path(name).unlink(missing_ok=True)

    def _download(self, url: str, file: BinaryIO) -> None:
        until = time.monotonic() + _MAX_SECONDS
        for attempt in range(_MAX_TRIES):
            is_last = attempt == _MAX_TRIES - 1
            wished = ""
            try:
                response = self._answer(url, until)
            except (NewConnectionError, ProtocolError, ReadTimeoutError):
                if is_last:
                    raise
            else:
                with contextlib.closing(response):
                    if response.status not in _BUSY or is_last:
                        _copy(response, file, until)
                        return
                    wished = response.headers.get("Retry-After", "")
            pause = float(wished) if wished.isdecimal() and len(wished) < 9 else self._backoff_s * 2**attempt
            time.sleep(min(pause, _MAX_PAUSE_S, max(until - time.monotonic(), 0)))
        raise AssertionError("unreachable: the last try returns or raises")

    def _answer(self, url: str, until: float) -> BaseHTTPResponse:
        """The answer at the end of all redirections, each of which is checked like the first address."""
        for _ in range(_MAX_REDIRECTIONS + 1):
            _check_time(until)
            _check_url(url)
            response = self._pool.request(
                "GET", url, preload_content=False, decode_content=False, redirect=False, retries=False
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTIONS or not location:
                return response
            response.close()  # its body, which may have no end, is not read
            url = urljoin(url, location)
        raise PictureError(f"it is redirected more than {_MAX_REDIRECTIONS} times")

    @cached_property
    def _pool(self) -> PoolManager:
        """Created in the process that uses it: connections cannot be sent to another process."""
        return pool_manager(
            self._allowed_hosts,
            maxsize=self._num_connections,
            block=True,
            timeout=Timeout(connect=10, read=30),
            headers={"User-Agent": "vip5-serve", "Accept": _ACCEPT, "Accept-Encoding": "identity"},
        )


def _check_url(url: str) -> None:
    try:
        parts = parse_url(url)
    except LocationParseError as error:
        raise PictureError(f"it cannot be downloaded ({error})") from error
    if parts.scheme not in {"http", "https"} or not parts.host or parts.auth:
        raise PictureError(f"it cannot be downloaded ({url[:200]!r} is not an http or https URL without a password)")


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise PictureError(f"it cannot be downloaded within {_MAX_SECONDS:.0f} s")


def _copy(response: BaseHTTPResponse, file: BinaryIO, until: float) -> None:
    """The body as it comes, piece by piece, so that a slow one is noticed."""
    if response.status != _OK:
        raise PictureError(f"the server answered {response.status}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise PictureError(f"the server compressed it ({encoding[:40]}), which was not asked for")
    while piece := response.read1(_CHUNK_BYTES):
        file.write(piece)
        if file.tell() > MAX_BYTES:
            raise PictureError(f"the file is larger than {MAX_BYTES >> 20} MiB")
        _check_time(until)
