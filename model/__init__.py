"""The model and its runtime.

Knows no HTTP and no Redis; needs torch, numpy, safetensors, tokenizers and pyarrow only.
"""
