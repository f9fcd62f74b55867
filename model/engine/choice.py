"""Choice of an engine: by name, or the fastest available on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import get_args

import torch

from model.decoding.trie_arena import TrieArena
from model.engine.captured.buckets import Bucket
from model.engine.captured.engine import captured_engine
from model.engine.captured.options import CaptureOptions, Precision
from model.engine.decoding_engine import DecodingEngine
from model.engine.executor import Executor
from model.engine.names import EngineName
from model.engine.protocol import Engine
from model.engine.torch_executor import TorchExecutor
from model.errors import EngineError
from model.network.network import Vip5Network

_CAPTURED: dict[str, Precision] = {
    "graphs-float32": "float32",
    "graphs-tfloat32": "tfloat32",
    "graphs-bfloat16": "bfloat16",
}


def make_engine(
    name: EngineName,
    network: Vip5Network,
    arena: TrieArena,
    device: torch.device,
    *,
    buckets: tuple[Bucket, ...] | None = None,
) -> Engine:
    """Create an engine for a frozen network. Raises EngineError for a name that is unknown or cannot run here.

    `auto` is captured searches in tfloat32 on CUDA, ONNX Runtime on a CPU, where it is faster than torch
    (benchmarks/RESULTS.md), and torch on other devices or without ONNX Runtime. `buckets` are the shapes that captured
    searches capture at the start.
    """
    if name not in get_args(EngineName):
        raise EngineError(f"the engine {name!r} is not known; choose one of {', '.join(get_args(EngineName))}")
    if name == "auto" and device.type == "cuda":
        name = "graphs-tfloat32"
    if name in _CAPTURED:
        options = CaptureOptions(precision=_CAPTURED[name], captures=device.type == "cuda", warm_up=buckets)
        return captured_engine(network, arena.tries, device, options)
    return DecodingEngine(_executor(name, network, device), arena)


def _executor(name: EngineName, network: Vip5Network, device: torch.device) -> Executor:
    missing = [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]
    if name == "torch" or (name == "auto" and (device.type != "cpu" or missing)):
        return TorchExecutor(network.to(device), device)
    if missing:
        raise EngineError(f"the engine {name!r} needs {' and '.join(missing)}; install them, or choose torch")
    from model.engine.onnx.executor import OnnxExecutor  # noqa: PLC0415  # optional dependency

    return OnnxExecutor(network, device, precision="int8" if name == "onnx-int8" else "float32")
