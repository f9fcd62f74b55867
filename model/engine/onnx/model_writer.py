"""Writer of ONNX models, node by node; independent of the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators: fused attention, dynamically quantised products."""

_IR_VERSION = 10  # readable by ONNX Runtime 1.18 and later
_EXTERNAL_BYTES = 1024
"""Size from which a weight is stored outside the model, whose protobuf is limited to two gigabytes."""

Array = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8] | NDArray[np.int64]
Attribute = float | list[int]


class ModelWriter:
    """Collects nodes in execution order. Methods return the names of values."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._small: list[onnx.TensorProto] = []
        self.weights: dict[str, Array] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, *, is_index: bool = False) -> str:
        """A float32 input of any shape, or an int64 one for an index."""
        kind = TensorProto.INT64 if is_index else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, None))
        return name

    def mask(self, name: str) -> str:
        """An int32 input, 1 at valid positions."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.INT32, None))
        return name

    def output(self, name: str, value: str) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def node(self, kind: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """A node with one output."""
        return self.nodes(kind, *inputs, count=1, domain=domain, **attributes)[0]

    def nodes(self, kind: str, *inputs: str, count: int, domain: str = "", **attributes: Attribute) -> list[str]:
        """A node with several outputs. An omitted input is an empty name."""
        first = f"{kind.lower()}_{len(self._nodes)}"
        outputs = [f"{first}.{number}" for number in range(count)]
        node = helper.make_node(kind, list(inputs), outputs, name=first, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return outputs

    def constant(self, array: Array) -> str:
        """A small constant; equal constants are written once."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._small.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def weight(self, name: str, array: Array) -> str:
        """A weight of the backbone."""
        self.weights[name] = array.copy(order="C")
        return name

    def model(self, name: str) -> onnx.ModelProto:
        """The model without its large weights, which are passed to the session or saved beside it."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, [*self._small, *map(self._initializer, self.weights)]
        )
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=_IR_VERSION, producer_name="vip5-serve")

    def _initializer(self, name: str) -> onnx.TensorProto:
        array = self.weights[name]
        if array.nbytes < _EXTERNAL_BYTES:
            return numpy_helper.from_array(array, name)
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "passed in memory"
        return tensor

    def save(self, path: Path) -> None:
        """Write the model, with its weights in one file beside it."""
        whole = self.model(path.stem)
        for tensor in whole.graph.initializer:
            if tensor.name in self.external_weights:
                tensor.CopyFrom(numpy_helper.from_array(self.weights[tensor.name], tensor.name))
        onnx.save_model(
            whole, path, save_as_external_data=True, location=f"{path.stem}.weights", size_threshold=_EXTERNAL_BYTES
        )

    @property
    def external_weights(self) -> dict[str, Array]:
        """The weights that are not part of `model`."""
        return {name: array for name, array in self.weights.items() if array.nbytes >= _EXTERNAL_BYTES}
