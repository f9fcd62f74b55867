"""Static inputs and outputs of a captured search, each packed into one buffer and transferred in one copy."""

# B rows, S source length, I images, F feature width, K beams, E listed leaves

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.batch_boosts import PADDING
from model.decoding.items import ROW_OPTION_TYPES, RowOptions
from model.engine.captured.buckets import Bucket

_ALIGNMENT = 256

Array = TypeVar("Array", Tensor, NDArray[Any])  # int32 or float32, see the fields

Shape = tuple[int, ...]
Shapes = Mapping[str, tuple[Shape, torch.dtype]]


@dataclass(frozen=True)
class SearchInputs(Generic[Array]):
    """Inputs of a search: int32 unless noted. `domains` and `adapters` have 1 entry if all rows share a domain."""

    input_ids: Array  # [B, S]
    whole_word_ids: Array  # [B, S]
    category_ids: Array  # [B, S]
    domains: Array  # [B] or [1]
    adapters: Array  # [B] or [1]
    roots: Array  # [B, 1]
    depths: Array  # [B, 1]
    base_offset: Array  # [B, 1]
    base_weight: Array  # [B, 1]
    list_sign: Array  # [B, 1]
    listed: Array  # [B, E]
    boost_offset: Array  # [B, 1]; [0, 1] in a search without boosts, as the following
    boost_weight: Array  # [B, 1]
    patched: Array  # [B, P]
    patches: Array  # [B, P], float32
    features: Array  # [B, I, F], float32
    options: RowOptions[Array]  # [B, 1], types: ROW_OPTION_TYPES


@dataclass(frozen=True)
class SearchOutputs:
    """Outputs of a search."""

    scores: Tensor  # [B, K], float32, NEG_INF beyond the items found
    model_scores: Tensor  # [B, K], float32; [0, K] in a search without boosts
    bound: Tensor  # [B], float32
    leaves: Tensor  # [B, K], int32


class SearchBuffers:
    """Packed inputs and outputs of a bucket on the host and on the device, with views of them."""

    def __init__(self, bucket: Bucket, num_images: int, feature_dim: int, device: torch.device) -> None:
        self.is_boosted = bucket.is_boosted
        shapes = _input_shapes(bucket, num_images, feature_dim)
        is_pinned = device.type == "cuda"
        size = _num_bytes(shapes)
        self._host_in = torch.zeros(size, dtype=torch.uint8, pin_memory=is_pinned)
        self._device_in = torch.zeros(size, dtype=torch.uint8, device=device)
        results = _output_shapes(bucket)
        size = _num_bytes(results)
        self._host_out = torch.zeros(size, dtype=torch.uint8, pin_memory=is_pinned)
        self._device_out = torch.zeros(size, dtype=torch.uint8, device=device)
        self._first_feature = next(start for name, start, _ in _places(shapes) if name == "features")
        self._host_bytes = self._host_in.numpy()
        self.host = _inputs({name: view.numpy() for name, view in _views(self._host_in, shapes).items()})
        self.inputs = _inputs(_views(self._device_in, shapes))
        self.outputs = SearchOutputs(**_views(self._device_out, results))
        self.found = SearchOutputs(**_views(self._host_out, results))

    def send(self) -> None:
        """Copy all inputs to the device, asynchronously."""
        self._device_in.copy_(self._host_in, non_blocking=True)

    def fetch(self) -> None:
        """Copy all outputs to the host, asynchronously."""
        self._host_out.copy_(self._device_out, non_blocking=True)

    def clear(self) -> None:
        """Reset all rows to find no items: no token, no eligible leaf, one beam.

        Image features are kept, since rows without image tokens do not read them.
        """
        self._host_bytes[: self._first_feature] = 0
        self.host.options.num_beams.fill(1)
        self.host.options.k.fill(1)
        self.host.depths.fill(1)
        self.host.listed.fill(np.iinfo(np.int32).max)
        self.host.patched.fill(PADDING)


def _inputs(views: Mapping[str, Array]) -> SearchInputs[Array]:
    options = {each.name: views[_option(each.name)] for each in fields(RowOptions)}
    columns = {each.name: views[each.name] for each in fields(SearchInputs) if each.name != "options"}
    return SearchInputs(**columns, options=RowOptions(**options))


def _option(name: str) -> str:
    return f"options.{name}"


def _input_shapes(bucket: Bucket, num_images: int, feature_dim: int) -> Shapes:
    rows, num_read = bucket.num_rows, bucket.num_rows if bucket.is_mixed else 1
    tokens, column, boosted = (rows, bucket.num_tokens), (rows, 1), rows if bucket.is_boosted else 0
    whole = {
        "input_ids": tokens,
        "whole_word_ids": tokens,
        "category_ids": tokens,
        "domains": (num_read,),
        "adapters": (num_read,),
        **dict.fromkeys(("roots", "depths", "base_offset", "base_weight", "list_sign"), column),
        "listed": (rows, bucket.num_listed),
        **dict.fromkeys(("boost_offset", "boost_weight"), (boosted, 1)),
        "patched": (boosted, bucket.num_patches),
    }
    shapes: dict[str, tuple[Shape, torch.dtype]] = {name: (shape, torch.int32) for name, shape in whole.items()}
    shapes |= {_option(each.name): (column, getattr(ROW_OPTION_TYPES, each.name)) for each in fields(RowOptions)}
    shapes["patches"] = ((boosted, bucket.num_patches), torch.float32)
    shapes["features"] = ((rows, num_images, feature_dim), torch.float32)
    return shapes


def _output_shapes(bucket: Bucket) -> Shapes:
    found = (bucket.num_rows, bucket.num_beams)
    return {
        "scores": (found, torch.float32),
        "model_scores": ((bucket.num_rows if bucket.is_boosted else 0, bucket.num_beams), torch.float32),
        "bound": ((bucket.num_rows,), torch.float32),
        "leaves": (found, torch.int32),
    }


def _places(shapes: Shapes) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each view, in bytes."""
    start = 0
    for name, (shape, dtype) in shapes.items():
        end = start + prod(shape) * dtype.itemsize
        yield name, start, end
        start = -(-end // _ALIGNMENT) * _ALIGNMENT


def _num_bytes(shapes: Shapes) -> int:
    *_, (_, _, end) = _places(shapes)
    return -(-end // _ALIGNMENT) * _ALIGNMENT


def _views(buffer: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    return {name: buffer[start:end].view(shapes[name][1]).view(shapes[name][0]) for name, start, end in _places(shapes)}
