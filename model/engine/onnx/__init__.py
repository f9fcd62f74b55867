"""The executor for ONNX Runtime, and the two ONNX models that it runs."""
