"""Names of the engines, in a module that imports no engine."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "torch", "onnx", "onnx-int8", "graphs-float32", "graphs-tfloat32", "graphs-bfloat16"]
"""`onnx-int8` and `graphs-bfloat16` change rankings by rounding, so `auto` never chooses them."""
