"""The memory of a GPU, read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class GpuMemory(Collector):
    """`used` by tensors, `reserved` by torch's allocator (what is used included), `total` of the device; in bytes."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def collect(self) -> Iterable[Metric]:
        if not torch.cuda.is_initialized():  # asking would take memory of the device
            return
        _, total = torch.cuda.mem_get_info(self._device)
        family = GaugeMetricFamily("vip5_gpu_memory_bytes", "Memory of the device.", labels=["kind"])
        family.add_metric(["used"], torch.cuda.memory_allocated(self._device))
        family.add_metric(["reserved"], torch.cuda.memory_reserved(self._device))
        family.add_metric(["total"], total)
        yield family
