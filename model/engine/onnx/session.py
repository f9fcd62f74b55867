"""ONNX Runtime sessions whose inputs and outputs share memory with torch tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.utils.dlpack import from_dlpack

from model.engine.onnx.model_writer import ModelWriter
from quiet_libraries.onnx_runtime import onnxruntime


class Session:
    """Runs one model on the CPU. Thread-safe."""

    def __init__(self, name: str, writer: ModelWriter, num_threads: int) -> None:
        """0 threads uses all cores."""
        external = writer.external_weights.items()
        weights = {key: onnxruntime.OrtValue.ortvalue_from_numpy(array) for key, array in external}
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = num_threads
        settings.add_session_config_entry("session.force_spinning_stop", "1")  # frees the cores between runs
        settings.add_external_initializers(list(weights), list(weights.values()))
        model = writer.model(name).SerializeToString()
        self._session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def is_rounded(self) -> bool:
        """Whether logits are rounded, with the states beside them."""
        return "states" in self._outputs

    def run(self, inputs: Mapping[str, onnxruntime.OrtValue]) -> dict[str, onnxruntime.OrtValue]:
        """All outputs by name."""
        values = self._session.run_with_ort_values(self._outputs, inputs)
        return dict(zip(self._outputs, values, strict=True))


def to_value(tensor: Tensor) -> onnxruntime.OrtValue:
    """A value that shares the tensor's memory; copies only a tensor that is not contiguous."""
    return onnxruntime.OrtValue.from_dlpack(tensor.detach().contiguous())


def to_tensor(value: onnxruntime.OrtValue) -> Tensor:
    """A tensor that shares the value's memory."""
    tensor: Tensor = from_dlpack(value)
    return tensor
