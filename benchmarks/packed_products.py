"""What does packing a frozen weight for the CPU gain, and how fast is this machine at best?

Question  How fast are products of a few rows with the weights of a T5-small, plain and packed, beside the machine's own
          rates: a large matrix product, and reading memory?
Method    As many weights of a shape as fill 48 MB, so that none is in a cache when its turn comes; plain and packed in
          turns; the median of 9 rounds after one to warm up.
Output    GFLOP/s of both and their ratio, for each shape and number of rows; the last line is JSON.

    python -m benchmarks.packed_products [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from model.network.projection import Projection

SHAPES = ((512, 1536), (512, 2048), (2048, 512), (512, 32100))  # inputs, outputs
ROWS = (1, 20, 60, 640)
BYTES_OF_WEIGHTS = 48_000_000
ROUNDS = 9


@dataclass(frozen=True)
class Result:
    """One shape and number of rows."""

    inputs: int
    outputs: int
    rows: int
    plain_gflops: float
    packed_gflops: float


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compare(inputs: int, outputs: int, rows: int) -> Result:
    number = max(1, BYTES_OF_WEIGHTS // (4 * inputs * outputs))
    plain = [Projection(torch.nn.Parameter(torch.randn(outputs, inputs))) for _ in range(number)]
    packed = [Projection(projection.weight) for projection in plain]
    for projection in packed:
        projection.pack()
    x = torch.randn(rows, inputs)
    times: dict[str, list[float]] = {"plain": [], "packed": []}
    for _ in range(ROUNDS + 1):
        for name, projections in (("plain", plain), ("packed", packed)):
            times[name].append(seconds(lambda projections=projections: [each(x) for each in projections]))  # type: ignore[misc]  # mypy takes the default for an argument
    gflop = 2e-9 * rows * inputs * outputs * number
    rates = {name: gflop / statistics.median(taken[1:]) for name, taken in times.items()}
    return Result(inputs, outputs, rows, rates["plain"], rates["packed"])


def machine_rates() -> dict[str, float]:
    """GFLOP/s of a large product and GB/s of a sum over memory."""
    square, long = torch.randn(2048, 2048), torch.randn(100_000_000)
    product = statistics.median(seconds(lambda: square @ square) for _ in range(ROUNDS))
    read = statistics.median(seconds(long.sum) for _ in range(ROUNDS))
    return {"large_product_gflops": 2e-9 * 2048**3 / product, "read_gb_per_s": 4e-9 * len(long) / read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    rates = machine_rates()
    print(f"large product {rates['large_product_gflops']:.0f} GFLOP/s, memory read {rates['read_gb_per_s']:.0f} GB/s")
    print(f"{'weight':>14} {'rows':>5} {'plain':>7} {'packed':>7} {'ratio':>6}   GFLOP/s")
    results = []
    for inputs, outputs in SHAPES:
        for rows in ROWS:
            result = compare(inputs, outputs, rows)
            results.append(result)
            ratio = result.packed_gflops / result.plain_gflops
            shape = f"{inputs} x {outputs}"
            print(f"{shape:>14} {rows:>5} {result.plain_gflops:>7.0f} {result.packed_gflops:>7.0f} {ratio:>6.2f}")
    print(json.dumps({"benchmark": "packed_products", **rates, "results": [asdict(result) for result in results]}))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
