"""How many kernels does a captured search launch, and which of its parts launches them?

Question  A captured search is one launch for the host, but the device still starts every kernel in it, which takes
          longer than most of them run. How many are there, by part of the search?
Method    A search of T5-small's size runs on torch's meta device, which computes nothing and so needs no GPU. Every
          operator that is not a view counts as one launch, in the part whose function called it. Attention is the
          memory-efficient kernel and the norm the fused one, as on a GPU; a bias that the kernel would have to copy
          counts once more. The number is an estimate: top-k and sums along rows are several kernels on a GPU.
Output    A line per part; the last line is JSON.

    python -m benchmarks.launches [--rows 1] [--tokens 64] [--beams 20] [--mixed] [--boosted]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_workload import FULL
from model.decoding.nodes import NUM_FACTS, NodeTable
from model.engine.captured.buckets import Bucket
from model.engine.captured.catalog import Arrays
from model.engine.captured.program import ProgramShape, SearchProgram
from model.network.network import Vip5Network
from model.network.packing import PackedNetwork

MAX_CHILDREN = (128, 4096, 1024, 64)  # of 20 beams over Toys, one entry a step
_NUM_NODES = 40_000
_NUM_DOMAINS = 4

_PARTS = {  # the function that a part begins in, by the end of its module's path and its name
    ("network/network.py", "embed"): "embedding",
    ("network/packing.py", "rows"): "banks",
    ("network/stacks.py", "memorise"): "memory",
    ("network/network.py", "logits"): "head",
    ("network/network.py", "grow"): "decoder, rest",
    ("network/beam_tree.py", "branch"): "beam tree",
    ("network/beam_tree.py", "append"): "decoder layers",
    ("decoding/items.py", "search_items"): "search",
    ("captured/program.py", "run"): "buffers",
}
_LAYERS = {
    "EncoderBlock": "encoder layers",
    "DecoderBlock": "decoder layers",
    "Encoder": "encoder, rest",
    "Decoder": "decoder, rest",
}
_VIEWS = {
    *("alias", "as_strided", "detach", "diagonal", "expand", "lift_fresh", "narrow", "permute", "reshape", "select"),
    *("slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unsqueeze", "unfold"),
    *("view", "_reshape_alias", "_unsafe_view", "empty", "empty_strided", "empty_like", "new_empty"),
}
_INDEXES = {"index", "index_put_", "_index_put_impl_"}  # which count the marks of a mask
READS = {"_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}
"""Operators whose result the host waits for."""


@dataclass
class Launches(TorchDispatchMode):
    """Counts launches by part while it is active."""

    by_part: dict[str, Counter[str]] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no annotation for it

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        return {part: kinds.total() for part, kinds in self.by_part.items()}

    def count(self, name: str) -> None:
        self.by_part.setdefault(_part(sys._getframe(1)), Counter())[name] += 1  # noqa: SLF001  # public in CPython

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = func.name().split("::")[1].split(".")[0]
        if name in READS or (name in _INDEXES and any(map(_is_mask, _tensors(args[1])))):
            self.reads.append(name)
        if name not in _VIEWS:
            self.count(name)
        return func(*args, **(kwargs or {}))


def _tensors(indices: object) -> list[object]:
    return list(indices) if isinstance(indices, list | tuple) else []


def _is_mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}


def _part(frame: FrameType | None) -> str:
    while frame is not None:
        code = frame.f_code
        for (module, function), part in _PARTS.items():
            if code.co_name == function and code.co_filename.endswith(module):
                return part
        owner = type(frame.f_locals.get("self")).__name__
        if owner in _LAYERS and code.co_filename.endswith("network/stacks.py"):
            return _LAYERS[owner]
        frame = frame.f_back
    return "other"


def count_launches(bucket: Bucket) -> Launches:
    """Launches of one search of T5-small's size over four domains."""
    with torch.no_grad():  # in inference mode, composites would hide their operators
        with torch.device("meta"):
            network = Vip5Network(FULL.backbone, [FULL.layout] * _NUM_DOMAINS)
            network.requires_grad_(requires_grad=False).eval()
            arrays = _arrays()
            tables = torch.zeros(_NUM_NODES)
        program = SearchProgram(ProgramShape(bucket, MAX_CHILDREN), PackedNetwork.of(network), arrays, tables)
        with _device_kernels() as launches, launches:
            program.run()
    return launches


def _arrays() -> Arrays:
    facts = torch.zeros(_NUM_NODES, NUM_FACTS, dtype=torch.int32)
    sources, sums = (torch.zeros(_NUM_NODES, dtype=torch.int32) for _ in range(2))
    return Arrays(NodeTable(facts), sources, sums)


@contextmanager
def _device_kernels() -> Iterator[Launches]:
    """Kernels that torch chooses on a GPU: on meta tensors it would take composites."""
    launches = Launches()

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, **_: object) -> Tensor:
        bias = attn_mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        if bias.stride(-1) != 1 or any(stride % 8 for stride in bias.stride()[:-1]):
            launches.count("copy of a bias")
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention  # noqa: SLF001  # torch calls it so
        attended: Tensor = kernel(q, k, v, bias, False, 0.0, False, scale=1.0)[0]  # noqa: FBT003
        return attended

    def norm(x: Tensor, *_: object) -> Tensor:
        launches.count("rms_norm")
        return torch.empty_like(x)

    functional = "torch.nn.functional"
    with patch(f"{functional}.scaled_dot_product_attention", attention), patch(f"{functional}.rms_norm", norm):
        yield launches


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the kernels that a captured search launches.")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--mixed", action="store_true", help="rows of several domains")
    parser.add_argument("--boosted", action="store_true", help="rows with boosts")
    options = parser.parse_args()
    num_patches = 256 if options.boosted else 0
    bucket = Bucket(options.rows, options.tokens, options.beams, 64, is_mixed=options.mixed, num_patches=num_patches)
    launches = count_launches(bucket)
    for part, kinds in launches.by_part.items():
        frequent = ", ".join(f"{name} {number}" for name, number in kinds.most_common(12))
        print(f"{part:16}{kinds.total():6}  {frequent}")
    print(f"{'all':16}{launches.total:6}")
    print(json.dumps({"benchmark": "launches", **bucket.to_json(), "total": launches.total, **launches.parts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
