"""The network on ONNX Runtime: two graphs, and an executor that runs them."""
