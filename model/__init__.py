"""The model, its bundles and its engines, independent of HTTP and Redis.

Serving needs only torch, numpy, safetensors, tokenizers and pyarrow; ONNX Runtime is optional.
"""

import quiet_libraries  # noqa: F401  # before the libraries that it keeps quiet
