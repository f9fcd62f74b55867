"""A cache of captured searches by bucket: captured on first use, evicted least recently used first."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace

from model.engine.captured.buckets import Bucket, cheapest_cover
from model.engine.captured.catalog import DeviceCatalog
from model.engine.captured.options import CaptureCounts, CaptureOptions
from model.engine.captured.program import ProgramShape, Replay, SearchProgram
from model.engine.captured.replay import Recorder
from model.engine.products import float32_products
from model.network.packing import PackedNetwork

_MAX_COVER_COST = 2
"""A captured search of a larger bucket is used instead if its cost is at most this multiple."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A search that is ready for inputs and replay."""

    program: SearchProgram
    replay: Replay


class ProgramCache:
    """Prepares searches over one network. Not thread-safe."""

    def __init__(
        self, packed: PackedNetwork, catalog: DeviceCatalog, options: CaptureOptions, recorder: Recorder | None
    ) -> None:
        self._packed = packed
        self._catalog = catalog
        self._options = options
        self._recorder = recorder
        self._arrays = catalog.arrays
        self._prepared: OrderedDict[Bucket, Prepared] = OrderedDict()
        self.counts = CaptureCounts()

    @property
    def packed(self) -> PackedNetwork:
        return self._packed

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Buckets that are captured now."""
        return tuple(self._prepared)

    def without_boosts(self) -> tuple[Bucket, ...]:
        """With boosts, the buckets of the searches that are captured only without them; as many as fit beside these."""
        smallest = self._options.ladder.patches[0]
        boosted = [replace(bucket, num_patches=smallest) for bucket in self._prepared if not bucket.is_boosted]
        missing = [bucket for bucket in boosted if not any(kept.covers(bucket) for kept in self._prepared)]
        return tuple(missing[: self._options.max_captures - len(self._prepared)])

    def move_to(self, packed: PackedNetwork) -> None:
        """Switch to other banks and drop all captured searches."""
        self._packed = packed
        self.drop_all("the banks have grown")

    def prepare(self, need: Bucket, slots: Collection[int]) -> Prepared:
        """A search that covers a batch's sizes and slots. Raises torch.OutOfMemoryError."""
        if self._catalog.arrays is not self._arrays:
            self._arrays = self._catalog.arrays
            self.drop_all("the catalog's buffers have grown")
        bucket = self._options.ladder.bucket(need)
        if not self._options.ladder.holds(need):
            self.counts.uncaptured += 1
            program = self._program(bucket)
            return Prepared(program, self._run(program))
        cover = cheapest_cover(self._prepared, bucket, at_most=_MAX_COVER_COST * bucket.cost)
        if cover is not None and not self._serves(self._prepared[cover], slots):
            del self._prepared[cover]
            self.counts.dropped += 1
            logger.info("the catalog has outgrown the search captured for %s; it is captured again", cover)
            return self.prepare(need, slots)
        if cover is None:
            cover = bucket
            while len(self._prepared) >= self._options.max_captures:
                self._prepared.popitem(last=False)  # the least recently used
            self.capture(bucket)
        self._prepared.move_to_end(cover)
        return self._prepared[cover]

    def capture(self, bucket: Bucket) -> None:
        """Capture the search of a bucket and keep it. Raises torch.OutOfMemoryError as `prepare`."""
        program = self._program(bucket)
        run = self._run(program)
        replay = run if self._recorder is None else self._recorder.record(run)
        self.counts.captures += 1
        logger.info("captured the search for %s", bucket)
        self._prepared[bucket] = Prepared(program, replay)

    def drop_all(self, reason: str) -> None:
        """Drop all captured searches."""
        if self._prepared:
            logger.info("%d captured searches are dropped because %s", len(self._prepared), reason)
        self.counts.dropped += len(self._prepared)
        self._prepared.clear()

    def _serves(self, prepared: Prepared, slots: Collection[int]) -> bool:
        shape = prepared.program.shape
        if not prepared.program.reads_boosts(self._catalog.boosts.buffer):
            return False
        num_beams = shape.bucket.num_beams
        if shape.serves(self._catalog.max_children(num_beams)):
            return True
        return shape.serves(self._catalog.max_children(num_beams, slots))

    def _program(self, bucket: Bucket) -> SearchProgram:
        shape = ProgramShape(bucket, self._catalog.max_children(bucket.num_beams))
        return SearchProgram(shape, self._packed, self._arrays, self._catalog.boosts.buffer)

    def _run(self, program: SearchProgram) -> Replay:
        """Runs the search operator by operator; a replay keeps the precision of its capture."""
        products = self._options.products(program.shape.bucket)

        def run() -> None:
            with float32_products(products):
                program.run()

        return run
