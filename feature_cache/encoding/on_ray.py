"""Encoding on Ray Data, for catalogs that are too large for one machine.

Tasks read pictures wherever cores are free, actors run towers, and embeddings return to the machine that keeps the
journal. Every machine must have the pictures and the model under the same paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from feature_cache.encoding.encode import BatchEncoder, encode_batch
from feature_cache.encoding.errors import EncodingError, MissingExtraError
from feature_cache.encoding.journal import EncodedBatch
from feature_cache.encoding.opening import EncoderSource
from feature_cache.encoding.preparation import Batch, PictureReader

try:
    import ray
    import ray.data

    from quiet_libraries.on_ray import connect
except ImportError as _error:  # pragma: no cover - the extra is installed where tests run
    raise MissingExtraError("Ray", "ray", _error) from _error


_TOWER_CPUS = 0.5  # other than a task's, or Ray would fuse reading pictures into the tower's actor


_Objects = dict[str, NDArray[np.object_]]
"""A batch of Ray's: one column, `item`, of objects that are sent pickled."""


class _Preparation:
    """Reads pictures; a task."""

    def __init__(self, reader: PictureReader) -> None:
        self._reader = reader

    def __call__(self, batches: _Objects) -> _Objects:
        return _objects([self._reader.prepare(batch) for batch in batches["item"]])


class _Tower:
    """Loads the encoder once and encodes; an actor."""

    def __init__(self, source: EncoderSource) -> None:
        self._encoder = source.load()

    def __call__(self, prepared: _Objects) -> _Objects:
        return _objects([encode_batch(self._encoder, batch) for batch in prepared["item"]])


def _objects(items: Sequence[object]) -> _Objects:
    column = np.empty(len(items), dtype=np.object_)
    column[:] = items
    return {"item": column}


def encode_on_ray(source: EncoderSource, reader: PictureReader, *, num_towers: int, has_gpu: bool) -> BatchEncoder:
    """Yields batches as they are finished. Uses the cluster that RAY_ADDRESS names, or one on this machine.

    Raises EncodingError if Ray fails.
    """

    def encode(batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
        listed = list(batches)
        if not listed:
            return
        connect()
        pictures: ray.data.Dataset = ray.data.from_items(listed)
        prepared = pictures.map_batches(
            _Preparation(reader).__call__,  # type: ignore[arg-type]  # its type is a function of every format of batches
            batch_size=1,
        )
        encoded = prepared.map_batches(
            _Tower,
            fn_constructor_args=(source,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_towers),
            num_cpus=_TOWER_CPUS,
            num_gpus=1 if has_gpu else None,
        )
        try:
            for row in encoded.iter_rows():
                yield row["item"]
        except ray.exceptions.RayError as error:
            raise EncodingError(f"Ray failed ({error}); finished batches are kept, so run the command again") from error

    return encode
