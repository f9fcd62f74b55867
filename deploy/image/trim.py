"""Removes from the image's packages what serving never loads, about 460 MB. Run by the Dockerfile.

Tools, headers and tests; ONNX Runtime's library for programs in C, which Python's module has inside; and packages that
others need for purposes of their own: torch for exporting and compiling (sympy, mpmath, networkx), tokenizers for
downloading (hf_xet), pyarrow for Flight and S3, Ray for Java and for learning by reward.

    python trim.py [SITE_PACKAGES]
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

UNUSED = (
    "torch/_inductor",
    "torch/bin/protoc*",
    "torch/bin/test_*",
    "torch/include",
    "torch/share",
    "torch/test",
    "torch/lib/libbackend_with_compiler.so",
    "torch/lib/libjitbackend_test.so",
    "torch/lib/libtorchbind_test.so",
    "pyarrow/*flight*",
    "pyarrow/*s3*",
    "pyarrow/include",
    "pyarrow/tests",
    "numpy/tests",
    "numpy/*/tests",
    "onnx/backend/test",
    "onnxruntime/capi/libonnxruntime.so*",
    "sympy",
    "mpmath",
    "networkx",
    "hf_xet",
    "pandas/tests",
    "ray/jars",
    "ray/rllib",
)
"""Patterns below site-packages."""


def trim(folder: Path) -> None:
    """Remove what UNUSED names below `folder`."""
    for pattern in UNUSED:
        for path in list(folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


if __name__ == "__main__":
    trim(Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("purelib")))
