"""Encodes the pictures of a catalog into one file of embeddings, and resumes runs that were stopped."""

# n rows of a batch, D width of an embedding

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.journal import EncodedBatch, Journal
from feature_cache.encoding.preparation import Batch, PictureReader, PreparedBatch, cut_batches, prepare_batches
from feature_cache.encoding.sources import Fault, Listing
from feature_cache.encoding.towers import Encoder
from feature_cache.progress import Progress

FeatureWriter = Callable[[Path, Sequence[str], Iterable[NDArray[np.float16]], str, str], None]
"""Writes a file; called with its path, the item ids, pieces [n, D] of their embeddings, encoder and weights' sha256."""

BatchEncoder = Callable[[Iterable[Batch]], Iterator[EncodedBatch]]
"""Encodes batches, and yields them in any order."""


@dataclass(frozen=True)
class Destination:
    """Where results go, and what writes them. The work folder beside `out` is removed at the end."""

    out: Path
    report: Path
    write: FeatureWriter
    write_report: Callable[[Path, bytes], None]

    @property
    def work(self) -> Path:
        return self.out.with_name(f"{self.out.name}.work")


@dataclass(frozen=True)
class EncodingOptions:
    """Options of a run."""

    batch_size: int = 32
    restart: bool = False


@dataclass(frozen=True)
class EncodingSummary:
    """Result of a run."""

    num_encoded: int
    num_skipped: int
    num_resumed: int  # those of the encoded and skipped that an earlier run had finished
    seconds: float


def encode_catalog(
    listing: Listing,
    encoder: Encoder,
    encode: BatchEncoder,
    destination: Destination,
    options: EncodingOptions,
    progress: Progress,
) -> EncodingSummary:
    """Encode the pictures that remain, then write embeddings and faults in the listing's order.

    Raises EncodingError, and keeps finished batches in the work folder then. If no picture can be read, only the report
    is written.
    """
    run = _run(listing, encoder, options)
    started = time.monotonic()
    with Journal(destination.work, run, encoder.tower.dim, restart=options.restart) as journal:
        pending = [
            batch for batch in cut_batches(listing.pictures, options.batch_size) if batch.number not in journal.done
        ]
        num_resumed = len(listing.pictures) - sum(len(batch.pictures) for batch in pending)
        done = num_resumed
        progress("encoding", done, len(listing.pictures))
        for batch in encode(pending):
            journal.add(batch)
            done += len(batch.places) + len(batch.faults)
            rate = (done - num_resumed) / max(time.monotonic() - started, 1e-9)
            progress(f"encoding, {rate:.1f} items/s", done, len(listing.pictures))
        faults = [*listing.faults, *journal.faults]
        destination.write_report(destination.report, _lines_of(faults))
        places = journal.places()
        if not len(places):
            journal.remove()  # so that the next run tries all pictures again
            raise EncodingError(f"none of {len(listing.pictures)} pictures can be read; see {destination.report}")
        progress("writing", 0, None)
        item_ids = [listing.pictures[place].item_id for place in places.tolist()]
        destination.write(destination.out, item_ids, journal.pieces(), encoder.name, encoder.weights_sha256)
        journal.remove()
    return EncodingSummary(len(item_ids), len(faults), num_resumed, time.monotonic() - started)


def encode_here(encoder: Encoder, reader: PictureReader, num_workers: int) -> BatchEncoder:
    """Reads pictures in worker processes, and runs the tower in this one."""

    def encode(batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
        for prepared in prepare_batches(reader, batches, num_workers):
            yield encode_batch(encoder, prepared)

    return encode


def encode_batch(encoder: Encoder, prepared: PreparedBatch) -> EncodedBatch:
    """Embeddings in float16; one that is out of range or not finite becomes a fault."""
    features = encoder.tower.embed(prepared.pixels) if prepared.places else np.zeros((0, encoder.tower.dim), np.float32)
    with np.errstate(over="ignore"):
        halves = features.astype(np.float16)
    is_finite = np.isfinite(halves).all(axis=1)
    if is_finite.all():
        return EncodedBatch(prepared.number, prepared.places, halves, prepared.faults)
    places = tuple(np.asarray(prepared.places)[is_finite].tolist())
    overflown = [prepared.pictures[row] for row in np.flatnonzero(~is_finite)]
    reason = "its embedding is not finite in float16"
    faults = (*prepared.faults, *(Fault(picture.item_id, picture.location, reason) for picture in overflown))
    return EncodedBatch(prepared.number, places, halves[is_finite], faults)


def _run(listing: Listing, encoder: Encoder, options: EncodingOptions) -> dict[str, str | int]:
    """Identifies a run: only one that agrees in all of this is resumed."""
    pictures = hashlib.sha256()
    for picture in listing.pictures:
        pictures.update(json.dumps([picture.item_id, picture.location]).encode() + b"\n")
    return {
        "encoder": encoder.name,
        "weights": encoder.weights_sha256,
        "pictures": pictures.hexdigest(),
        "batch size": options.batch_size,
    }


def _lines_of(faults: Iterable[Fault]) -> bytes:
    entries = ({"item": fault.item_id, "picture": fault.location, "reason": fault.reason} for fault in faults)
    return "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries).encode()
