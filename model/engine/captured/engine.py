"""The engine whose searches run on the device from the first copy to the last, captured as CUDA graphs.

On a CPU, or with `captures=False`, the same searches run operator by operator over the same static buffers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from model.decoding.leaf_boosts import BoostTable
from model.decoding.trie import Trie
from model.decoding.trie_arena import TrieArena
from model.engine.boost_tables import starts_of
from model.engine.captured.buckets import Bucket
from model.engine.captured.catalog import DeviceCatalog
from model.engine.captured.device import prepare_device
from model.engine.captured.filling import fill, need_of, read
from model.engine.captured.options import CaptureCounts, CaptureOptions
from model.engine.captured.programs import Prepared, ProgramCache
from model.engine.captured.replay import CudaGraphs, Recorder
from model.engine.decoding_engine import DecodingEngine
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import LogProbs, Placement, Ranking, TextSession, Timings
from model.engine.rankings import widened_plan
from model.engine.torch_executor import TorchExecutor
from model.errors import EngineError
from model.network.network import NO_ADDITIONS, Vip5Network
from model.network.packing import PackedNetwork
from model.network.slots import fits, place_domain, with_layout

logger = logging.getLogger(__name__)


class CapturedEngine:
    """An Engine that captures searches; scores and texts run operator by operator with the same weights.

    A search is measured as a whole: `Timings.decode_s` is its duration, `encode_s` is 0.
    """

    def __init__(
        self, network: Vip5Network, tries: Sequence[Trie], device: torch.device, options: CaptureOptions
    ) -> None:
        """Takes ownership of a frozen network; trie i belongs to slot i. See `captured_engine`."""
        self._device = device
        self._options = options
        self._lock = threading.RLock()  # guards the programs and the network that they run
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        prepare_device(device, options.memory_share)
        self._recorder = Recorder(CudaGraphs(self._stream)) if self._stream is not None and options.captures else None
        self._catalog = DeviceCatalog(device)
        for slot, trie in enumerate(tries):
            self._catalog.put(slot, trie)
        network = _with_spare_slots(network.to(device=device, dtype=options.dtype), options.num_spare_slots)
        packed = PackedNetwork.of(network)
        self._synchronize()
        self._programs = ProgramCache(packed, self._catalog, options, self._recorder)
        # Scores and text sessions, which outlive banks: they share one executor, which moves to new banks.
        is_narrowed = options.precision == "tfloat32"  # by searches; scores and texts are computed in float32
        self._uncaptured = TorchExecutor(network, device, products="highest" if is_narrowed else None)
        self._texts = DecodingEngine(self._uncaptured, TrieArena.of([], device))

    @property
    def num_slots(self) -> int:
        return len(self._programs.packed.network.layouts)

    @property
    def is_exact(self) -> bool:
        return self._uncaptured.is_exact

    @property
    def counts(self) -> CaptureCounts:
        return self._programs.counts

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Buckets that are captured now."""
        return self._programs.buckets

    @torch.inference_mode()
    def warm_up(self, buckets: Sequence[Bucket]) -> None:
        """Capture searches before the first batch. Raises EngineError if memory does not suffice."""
        for bucket in buckets:
            try:
                with self._lock, self._on_stream():
                    self._programs.capture(bucket)
            except torch.OutOfMemoryError as error:
                raise EngineError(f"the search for {bucket} cannot be captured at the start: {error}") from error

    def place(self, slot: int, placement: Placement) -> None:
        with self._lock:
            network = self._programs.packed.network
            if not fits(network, slot, placement.layout):
                network = with_layout(network, slot, placement.layout)
                packed = PackedNetwork.of(network)
                self._synchronize()
                self._programs.move_to(packed)
                self._uncaptured.move_to(network)
        place_domain(network, slot, placement.layout, placement.weights)
        with torch.inference_mode():
            self._catalog.put(slot, placement.trie)

    def vacate(self, slot: int) -> None:
        self._catalog.drop(slot)

    @torch.inference_mode()
    def expect_boosts(self, tables: Sequence[BoostTable]) -> None:
        """Capture the captured searches with boosts too, as far as memory and the number of captures allow."""
        for table in tables:
            self._catalog.boosts.start(table)  # first upload them: a buffer that grows invalidates searches
        self._synchronize()
        with self._lock:
            boosted = self._programs.without_boosts()
        try:
            self.warm_up(boosted)
        except EngineError as error:
            logger.warning("searches with boosts are captured when they are needed: %s", error)
            self._free()

    @torch.inference_mode()
    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        """One search per plan; batches larger than the largest bucket are split."""
        started = time.perf_counter()
        rankings: dict[int, Ranking] = {}
        for places in self._by_precision(batch):
            most = self._max_rows([batch[place] for place in places])
            for start in range(0, len(places), most):
                part = places[start : start + most]
                rankings.update(zip(part, self._search_or_split([batch[place] for place in part]), strict=True))
        timings = Timings(decode_s=time.perf_counter() - started)
        return [rankings[place] for place in range(len(batch))], timings

    def widened(self, plan: RankingPlan, ranking: Ranking) -> RankingPlan | None:
        if self._options.precision == "bfloat16":
            return None  # no number of beams proves anything
        return widened_plan(plan, ranking, self._catalog.trie(plan.slot), self._options.certified_beam_limit)

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        return self._texts.score(batch)

    def open_texts(self, num_rows: int) -> TextSession:
        return self._texts.open_texts(num_rows)

    def _by_precision(self, batch: Sequence[RankingPlan]) -> list[list[int]]:
        """Places of the plans whose searches may share a bucket."""
        if self._options.precision != "tfloat32":
            return [list(range(len(batch)))]
        certified = [place for place, plan in enumerate(batch) if plan.certified]
        others = [place for place, plan in enumerate(batch) if not plan.certified]
        return [places for places in (others, certified) if places]

    def _need(self, plans: Sequence[RankingPlan]) -> Bucket:
        is_exact = self._options.precision == "tfloat32" and plans[0].certified
        return need_of(plans, self._programs.packed.network, is_exact=is_exact)

    def _max_rows(self, batch: Sequence[RankingPlan]) -> int:
        if len(batch) <= 1:
            return 1
        return self._options.ladder.max_rows(self._need(batch))

    def _search_or_split(self, plans: Sequence[RankingPlan], *, may_drop: bool = True) -> list[Ranking]:
        """Search a batch, in halves if it does not fit in memory, and at last without the other captures."""
        try:
            return self._search(plans)
        except torch.OutOfMemoryError as error:
            failure = str(error)
        # Outside of the handler, no exception holds the failed search, and its memory, any longer.
        self._free()
        if len(plans) == 1:
            if not (may_drop and self.buckets):
                raise EngineError(f"a single search does not fit in memory: {failure}")
            with self._lock:
                self._programs.drop_all("a single search did not fit in memory beside them")
            self._free()
            return self._search_or_split(plans, may_drop=False)
        self.counts.splits += 1
        half = (len(plans) + 1) // 2
        return self._search_or_split(plans[:half]) + self._search_or_split(plans[half:])

    def _search(self, plans: Sequence[RankingPlan]) -> list[Ranking]:
        with self._on_stream():
            prepared = self._filled(plans)
            prepared.program.buffers.send()
            prepared.replay()
            prepared.program.buffers.fetch()
            if self._stream is not None:
                self._stream.synchronize()
        is_exact = prepared.program.shape.bucket.is_exact or self._options.precision == "float32"
        return read(prepared.program.buffers, plans, is_exact=is_exact)

    def _filled(self, plans: Sequence[RankingPlan]) -> Prepared:
        for plan in plans:
            self._catalog.offset(plan.eligibility.base)  # first upload filters: buffers that grow invalidate searches
        starts_of(plans, self._catalog.boosts)  # likewise
        with self._lock:
            network = self._programs.packed.network
            prepared = self._programs.prepare(self._need(plans), {plan.slot for plan in plans})
        fill(prepared.program.buffers, plans, self._catalog, network)
        return prepared

    def _synchronize(self) -> None:
        """Wait for this thread's copies, before searches read them on their own stream."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).synchronize()

    def _free(self) -> None:
        if self._recorder is not None:
            self._recorder.free()

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        with torch.cuda.stream(self._stream):
            yield


def captured_engine(
    network: Vip5Network, tries: Sequence[Trie], device: torch.device, options: CaptureOptions | None = None
) -> CapturedEngine:
    """Move a frozen network to a device and capture its first searches; trie i belongs to slot i.

    Default options: captured bfloat16 on a GPU, uncaptured float32 elsewhere. Raises EngineError if memory does not
    suffice.
    """
    is_gpu = device.type == "cuda"
    options = options or CaptureOptions(precision="bfloat16" if is_gpu else "float32", captures=is_gpu)
    engine = CapturedEngine(network, tries, device, options)
    usual = options.ladder.default_buckets() if options.captures and tries else ()
    engine.warm_up(usual if options.warm_up is None else options.warm_up)
    return engine


def _with_spare_slots(network: Vip5Network, num_spare: int) -> Vip5Network:
    return with_layout(network, len(network.layouts) + num_spare - 1, NO_ADDITIONS) if num_spare else network
