"""Measures a device's limits, and counts the operations and bytes of a batch of searches."""

# B rows, S source length, K beams, T steps, D model width, V vocabulary

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from model.network.config import BackboneConfig, DomainLayout


@dataclass(frozen=True)
class Ceilings:
    """Peak rates of a device."""

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Demand:
    """Work of one batch: each weight is read once per step, each product is counted."""

    flops: float
    num_bytes: float

    def floor_s(self, ceilings: Ceilings) -> float:
        """The lower bound of the run time."""
        return max(self.flops / ceilings.flops_per_s, self.num_bytes / ceilings.bytes_per_s)


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """A large matrix product of random numbers, and a large copy; counts bytes read and written."""
    is_gpu = device.type == "cuda"
    size = 8192 if is_gpu else 128
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product_s = median_s(lambda: torch.mm(a, b), device, repeats=10)
    source = torch.randn((1 << 30) if is_gpu else (1 << 18), device=device)
    target = torch.empty_like(source)
    copy_s = median_s(lambda: target.copy_(source), device, repeats=10)
    return Ceilings(2 * size**3 / product_s, 2 * source.numel() * source.element_size() / copy_s)


def median_s(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds per run, synchronising before and after each, after three warm-up runs."""
    seconds = [timed_s(run, device) for _ in range(repeats + 3)][3:]
    return sorted(seconds)[len(seconds) // 2]


def timed_s(run: Callable[[], object], device: torch.device) -> float:
    settle(device)
    started = time.perf_counter()
    run()
    settle(device)
    return time.perf_counter() - started


def settle(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_demand(
    config: BackboneConfig, layout: DomainLayout, lengths: Sequence[int], num_beams: int, num_steps: int, size: int
) -> Demand:
    """Work for prompts of these lengths, unpadded, with `size` bytes per number; the first step has one beam."""
    width, inner, feed = config.d_model, config.inner_dim, config.d_ff
    adapter = 2 * width * layout.bottleneck
    attention, hidden = 4 * width * inner, 2 * width * feed
    encoder_layer = attention + hidden + 2 * adapter
    decoder_layer = attention + 2 * width * inner + hidden + 3 * adapter
    cross_keys = 2 * width * inner
    tokens = sum(lengths)
    beams = len(lengths) * (1 + num_beams * (num_steps - 1))
    read_twice = 4 * inner  # scores and their sum, for each pair of positions
    flops = 2.0 * tokens * (config.num_layers * encoder_layer + config.num_decoder_layers * cross_keys)
    flops += config.num_layers * read_twice * sum(length * length for length in lengths)
    flops += 2.0 * beams * (config.num_decoder_layers * decoder_layer + width * config.vocab_size)
    per_row_beams = beams / len(lengths)
    flops += config.num_decoder_layers * read_twice * sum(length * per_row_beams for length in lengths)
    decoder_weights = config.num_decoder_layers * decoder_layer + width * config.vocab_size
    weights = config.num_layers * encoder_layer + config.num_decoder_layers * cross_keys + num_steps * decoder_weights
    keys = num_steps * config.num_decoder_layers * 2 * inner * tokens
    logits = 3 * 4 * beams * config.vocab_size  # written, read and written again as log-probabilities, in float32
    return Demand(flops, size * (weights + keys) + logits)
