"""A catalog's pictures become one file, however often the run is stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_cache.encoding.downloads import Downloads
from feature_cache.encoding.encode import (
    BatchEncoder,
    Destination,
    EncodingOptions,
    EncodingSummary,
    encode_catalog,
    encode_here,
)
from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.journal import EncodedBatch
from feature_cache.encoding.preparation import Batch, PictureReader
from feature_cache.encoding.sources import Listing, Picture
from feature_cache.encoding.towers import Encoder
from model.bundle.features import load_features, write_feature_pieces
from model.bundle.folders import write_whole
from tests.clips import draw_folder

BATCH_SIZE = 4


class Killed(BaseException):
    """As a signal would, it passes everything that catches errors."""


class Workshop:
    """15 items: number 3 is broken, 6 missing, 9 has no picture in the catalog; batches 0 to 3."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.folder = folder
        self.encoder = encoder
        pictures = draw_folder(folder / "pictures", 15)
        (pictures / "item-3.png").write_bytes(b"no picture")
        (pictures / "item-6.png").unlink()
        names = tuple(f"item-{number}" for number in range(1, 16) if number != 9)
        self.listing = Listing(tuple(Picture(name, f"{name}.png") for name in names), ())
        self.reader = PictureReader(pictures, Downloads(folder / "cache"), encoder.preprocessing)
        self.progress: list[tuple[int, int | None]] = []

    def destination(self, name: str = "out") -> Destination:
        out, report = self.folder / f"{name}.safetensors", self.folder / f"{name}.jsonl"
        return Destination(out, report, write_feature_pieces, write_whole)

    def run(
        self, name: str = "out", how: BatchEncoder | None = None, options: EncodingOptions | None = None
    ) -> EncodingSummary:
        return encode_catalog(
            self.listing,
            self.encoder,
            how or encode_here(self.encoder, self.reader, 0),
            self.destination(name),
            options or EncodingOptions(BATCH_SIZE),
            lambda _, done, total: self.progress.append((done, total)),
        )

    def killed_after(self, num_batches: int) -> BatchEncoder:
        def encode(batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
            for number, batch in enumerate(encode_here(self.encoder, self.reader, 0)(batches)):
                if number == num_batches:
                    raise Killed
                yield batch

        return encode


@pytest.fixture
def workshop(tmp_path: Path, encoder: Encoder) -> Workshop:
    return Workshop(tmp_path, encoder)


def test_embeddings_stand_in_the_listing_s_order_and_faults_in_the_report(workshop: Workshop) -> None:
    summary = workshop.run()

    assert (summary.num_encoded, summary.num_skipped, summary.num_resumed) == (12, 2, 0)
    found = load_features(workshop.destination().out)
    names = [picture.item_id for picture in workshop.listing.pictures]
    assert list(found.item_ids) == [name for name in names if name not in {"item-3", "item-6"}]
    assert len(np.unique(found.features, axis=0)) == 12
    assert [json.loads(line) for line in workshop.destination().report.read_text().splitlines()] == [
        {
            "item": "item-3",
            "picture": "item-3.png",
            "reason": "the file is not a picture in one of the formats PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF, PPM",
        },
        {"item": "item-6", "picture": "item-6.png", "reason": "there is no such file"},
    ]
    assert not workshop.destination().work.exists()
    assert (workshop.progress[0], workshop.progress[-2]) == ((0, 14), (14, 14))


@pytest.mark.parametrize("num_batches", range(5))
def test_a_killed_run_that_is_started_again_gives_the_very_same_files(num_batches: int, workshop: Workshop) -> None:
    workshop.run("whole")
    for already in range(num_batches):
        with pytest.raises(Killed):
            workshop.run("killed", workshop.killed_after(1 if already else 0))
    assert not workshop.destination("killed").out.exists()

    summary = workshop.run("killed")

    assert summary.num_resumed == max(num_batches - 1, 0) * BATCH_SIZE
    whole, killed = workshop.destination("whole"), workshop.destination("killed")
    assert killed.out.read_bytes() == whole.out.read_bytes()
    assert killed.report.read_bytes() == whole.report.read_bytes()


def test_batches_may_be_done_in_any_order(workshop: Workshop) -> None:
    def backwards(batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
        yield from reversed(list(encode_here(workshop.encoder, workshop.reader, 0)(batches)))

    workshop.run("forwards")
    workshop.run("backwards", backwards)
    forwards, back = workshop.destination("forwards"), workshop.destination("backwards")
    assert back.out.read_bytes() == forwards.out.read_bytes()
    assert back.report.read_bytes() == forwards.report.read_bytes()


def test_worker_processes_give_the_same_as_this_one(workshop: Workshop) -> None:
    workshop.run("here")
    workshop.run("workers", encode_here(workshop.encoder, workshop.reader, 2))
    assert workshop.destination("workers").out.read_bytes() == workshop.destination("here").out.read_bytes()


def test_other_pictures_or_batches_are_no_continuation(workshop: Workshop) -> None:
    with pytest.raises(Killed):
        workshop.run("out", workshop.killed_after(1))
    with pytest.raises(EncodingError, match="unfinished run with another batch size"):
        workshop.run("out", options=EncodingOptions(BATCH_SIZE + 1))
    workshop.listing = replace(workshop.listing, pictures=workshop.listing.pictures[1:])
    with pytest.raises(EncodingError, match="unfinished run with another pictures"):
        workshop.run("out")
    assert workshop.run("out", options=EncodingOptions(BATCH_SIZE, restart=True)).num_resumed == 0


def test_without_any_readable_picture_only_the_report_is_written(workshop: Workshop) -> None:
    workshop.listing = Listing(workshop.listing.pictures[2:3], ())
    with pytest.raises(EncodingError, match=r"none of 1 pictures can be read; see .*out\.jsonl"):
        workshop.run()
    assert not workshop.destination().out.exists()
    assert "item-3" in workshop.destination().report.read_text()


def test_a_run_that_failed_for_missing_pictures_reads_them_when_it_is_started_again(workshop: Workshop) -> None:
    workshop.listing = Listing(workshop.listing.pictures[2:3], ())
    with pytest.raises(EncodingError):
        workshop.run()
    draw_folder(workshop.folder / "pictures", 3)
    assert workshop.run().num_encoded == 1


class Overflowing:
    """A tower whose second row does not fit into float16, and whose third is not a number."""

    dim = 2

    def embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        features = np.ones((len(pixels), self.dim), dtype=np.float32)
        features[1, 0], features[2, 1] = 1e6, np.nan
        return features


def test_embeddings_that_float16_cannot_hold_are_faults(tmp_path: Path, encoder: Encoder) -> None:
    workshop = Workshop(tmp_path, replace(encoder, tower=Overflowing()))
    draw_folder(tmp_path / "pictures", 3)
    workshop.listing = Listing(workshop.listing.pictures[:3], ())
    assert workshop.run().num_encoded == 1
    assert [json.loads(line)["item"] for line in workshop.destination().report.read_text().splitlines()] == [
        "item-2",
        "item-3",
    ]
