"""Names of the engines; importing them costs nothing."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "torch", "onnx", "onnx-int8", "graphs-float32", "graphs-tfloat32", "graphs-bfloat16"]
"""`onnx-int8` and `graphs-bfloat16` change rankings by what they round; they are never chosen by themselves."""
