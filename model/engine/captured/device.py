"""Settings of a CUDA device that searches need. They apply to the whole process."""

from __future__ import annotations

import torch


def prepare_device(device: torch.device, memory_share: float) -> None:
    """Choose kernels, and limit torch's memory to a share of the device's, so that a lack of it is an error of torch.

    cuDNN's attention plans anew for every shape, which takes longer than all searches of a shape save. Sums of bfloat16
    products are not to be rounded to bfloat16 on the way. Does nothing on other devices.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.cuda.set_per_process_memory_fraction(memory_share, device)
