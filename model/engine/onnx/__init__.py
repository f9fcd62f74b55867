"""The network on ONNX Runtime: two models, and the executor that runs them."""
