"""What does checking the signature of an embedding cost?

Question  Microseconds to check one value of width 512 (float16) that Redis returned: unsigned (CRC-32), signed
          (HMAC-SHA256), and signed with the other secret, which is accepted while the secret is changed.
Method    100 values, checked in turn by all three, 1,000 times after a warm-up. No Redis.
Output    Median and p95 a value, and the ratio to unsigned; the last line is JSON.

    python -m benchmarks.signed_values
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import replace

import numpy as np

from feature_cache.codec import Codec
from feature_cache.remote.layout import Edition
from feature_cache.signing import Signing
from feature_cache.store import FeatureSpace

DIM, NUM_ITEMS, NUM_ROUNDS, NUM_WARM_UP = 512, 100, 1_000, 50
SECRET = "a secret of many characters"  # noqa: S105  # of nothing


def main() -> int:
    item_ids = [f"B{number:09d}" for number in range(NUM_ITEMS)]
    features = np.random.default_rng(0).standard_normal((NUM_ITEMS, DIM)).astype(np.float16)
    plain = Edition.plan(FeatureSpace("toys", "vitb32", DIM), "v1", "float16", NUM_ITEMS, 1)
    signed = replace(plain, signing=Signing(SECRET)).codec
    other = replace(plain, signing=Signing("another secret of characters", other=SECRET)).codec
    contenders: dict[str, tuple[Codec, list[bytes]]] = {
        "unsigned": (plain.codec, plain.codec.encode(item_ids, features)),
        "signed": (signed, signed.encode(item_ids, features)),
        "signed with the other": (other, signed.encode(item_ids, features)),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(NUM_WARM_UP + NUM_ROUNDS):
        for name, (codec, values) in contenders.items():
            started = time.perf_counter()
            assert all(codec.row_of(each, value) for each, value in zip(item_ids, values, strict=True))
            if round_ >= NUM_WARM_UP:
                times[name].append((time.perf_counter() - started) / NUM_ITEMS * 1e6)
    found = {name: np.percentile(each, [50, 95]).round(2).tolist() for name, each in times.items()}
    for name, (p50, p95) in found.items():
        print(f"{name:22} {p50:6.2f} / {p95:6.2f} µs, {p50 / found['unsigned'][0]:.1f} times unsigned")
    print(json.dumps({"benchmark": "signed_values", "python": platform.python_version(), "us_p50_p95": found}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
