"""Keeps libraries from sending usage data. Importing this package is enough, if it comes before them.

ONNX Runtime's wheels since 1.29 write a device id and a database into the home folder and look up Microsoft's
collector, unless a variable for builds or tests is set. Ray and huggingface_hub report versions and machines. The
variables below are set whatever they were, and child processes get them too.
"""

from __future__ import annotations

import os

VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}

os.environ.update(VARIABLES)
