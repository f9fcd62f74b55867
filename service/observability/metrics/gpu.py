"""Memory of a GPU, read on each scrape."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class GpuMemory(Collector):
    """In bytes: `used` by tensors, `reserved` by torch's allocator (includes `used`), `total` of the device."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def collect(self) -> Iterable[Metric]:
        if not torch.cuda.is_initialized():  # mem_get_info would initialise CUDA, which takes device memory
            return
        _, total = torch.cuda.mem_get_info(self._device)
        family = GaugeMetricFamily(
            "vip5_gpu_memory_bytes",
            "Memory of the GPU in bytes: used by tensors, reserved by the allocator, total.",
            labels=["kind"],
        )
        family.add_metric(["used"], torch.cuda.memory_allocated(self._device))
        family.add_metric(["reserved"], torch.cuda.memory_reserved(self._device))
        family.add_metric(["total"], total)
        yield family
