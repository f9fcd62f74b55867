"""The only module that imports ONNX Runtime, after its telemetry was turned off."""

from __future__ import annotations

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
