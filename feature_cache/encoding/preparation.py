"""Prepares batches of pictures for a tower, in this process or in workers.

Batches are cut from the list of all pictures by position, including broken ones, so that a resumed run computes exactly
the same batches.
"""

# N pictures of a batch that can be read, S edge of the encoder's input

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from feature_cache.encoding.downloads import Downloads
from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.pictures import decode, read_file
from feature_cache.encoding.preprocessing import Preprocessing
from feature_cache.encoding.sources import Fault, Picture, PictureError, local_path

_PREFETCH = 2  # batches that each worker prepares ahead


@dataclass(frozen=True)
class Batch:
    """Pictures that are encoded together; `first` is the position of the first among all pictures."""

    number: int
    first: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, eq=False)
class PreparedBatch:
    """The pictures of a batch that can be read."""

    number: int
    places: tuple[int, ...]  # positions of the N among all pictures
    pictures: tuple[Picture, ...]  # the N
    pixels: NDArray[np.float32]  # [N, 3, S, S]
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class PictureReader:
    """Reads and preprocesses pictures. Can be sent to other processes and machines."""

    root: Path
    downloads: Downloads
    preprocessing: Preprocessing

    def prepare(self, batch: Batch) -> PreparedBatch:
        contents = self._fetch(batch.pictures)
        places, pictures, pixels, faults = [], [], [], []
        for place, (picture, content) in enumerate(zip(batch.pictures, contents, strict=True), start=batch.first):
            try:
                if isinstance(content, PictureError):
                    raise content
                pixels.append(self.preprocessing.pixels(decode(content)))
                places.append(place)
                pictures.append(picture)
            except PictureError as error:
                faults.append(Fault(picture.item_id, picture.location, str(error)))
        size = self.preprocessing.image_size
        stacked = np.stack(pixels) if pixels else np.zeros((0, 3, size, size), dtype=np.float32)
        return PreparedBatch(batch.number, tuple(places), tuple(pictures), stacked, tuple(faults))

    def _fetch(self, pictures: Sequence[Picture]) -> list[bytes | PictureError]:
        """The files' bytes; those from the web are downloaded concurrently."""
        if not any(picture.is_remote for picture in pictures):
            return [self._read(picture) for picture in pictures]
        with ThreadPoolExecutor(self.downloads.num_connections) as threads:
            return list(threads.map(self._read, pictures))

    def _read(self, picture: Picture) -> bytes | PictureError:
        try:
            if picture.is_remote:
                return self.downloads.read(picture.location)
            return read_file(local_path(picture, self.root))
        except PictureError as error:
            return error


def cut_batches(pictures: Sequence[Picture], batch_size: int) -> Iterator[Batch]:
    for number, first in enumerate(range(0, len(pictures), batch_size)):
        yield Batch(number, first, tuple(pictures[first : first + batch_size]))


def prepare_batches(reader: PictureReader, batches: Iterable[Batch], num_workers: int) -> Iterator[PreparedBatch]:
    """Prepared batches in order; 0 workers means in this process.

    Each worker holds at most two batches. They are sent through a pipe, because containers have little shared memory.
    Raises EncodingError if a worker dies.
    """
    if num_workers == 0:
        yield from map(reader.prepare, batches)
        return
    context = multiprocessing.get_context("forkserver")  # a fork of this process would inherit the locks of its threads
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        _Preparations(reader),
        batch_size=None,
        sampler=batches,
        num_workers=num_workers,
        collate_fn=_unchanged,
        prefetch_factor=_PREFETCH,
        multiprocessing_context=context,
    )
    try:
        yield from cast("Iterator[PreparedBatch]", loader)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]  # the line after the worker's traceback
        raise EncodingError(
            f"a worker process failed ({reason}); finished batches are kept, so run the command again"
        ) from error


class _Preparations(Dataset[PreparedBatch]):
    """Has the batches themselves as keys, so that a worker receives only what it has to read."""

    def __init__(self, reader: PictureReader) -> None:
        self._reader = reader

    def __getitem__(self, batch: Batch) -> PreparedBatch:
        return self._reader.prepare(batch)


def _unchanged(prepared: list[PreparedBatch]) -> list[PreparedBatch]:
    """Replaces torch's collation, which would turn arrays into tensors. Without batching it gets no list."""
    return prepared
