"""Pictures from the web, cached in a folder so that each is fetched once."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import urllib3
from urllib3.exceptions import HTTPError

from feature_cache.encoding.pictures import MAX_BYTES, read_file
from feature_cache.encoding.sources import PictureError

_OK = 200
_MAX_SECONDS = 120.0  # for one picture
_CHUNK_BYTES = 1 << 16


class Downloads:
    """A folder of downloaded pictures, named by the sha256 of their URLs. Processes may share it."""

    def __init__(self, folder: Path, *, num_connections: int = 16, backoff_s: float = 0.5) -> None:
        """`backoff_s` is the pause before the first retry of a failed request; it doubles with each retry."""
        self._folder = folder
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
        with self._pool.request("GET", url, preload_content=False) as response:
            if response.status != _OK:
                raise PictureError(f"the server answered {response.status}")
            for chunk in response.stream(_CHUNK_BYTES):
                file.write(chunk)
                if file.tell() > MAX_BYTES:
                    raise PictureError(f"the file is larger than {MAX_BYTES >> 20} MiB")
                if time.monotonic() > until:
                    raise PictureError(f"it cannot be downloaded within {_MAX_SECONDS:.0f} s")

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        """Created in the process that uses it: connections cannot be sent to another process."""
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings of retries would break the progress bar
        retries = urllib3.Retry(
            total=4, backoff_factor=self._backoff_s, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
        )
        return urllib3.PoolManager(
            maxsize=self._num_connections,
            block=True,
            retries=retries,
            timeout=urllib3.Timeout(connect=10, read=30),
            headers={"User-Agent": "vip5-serve", "Accept": "image/*"},
        )
