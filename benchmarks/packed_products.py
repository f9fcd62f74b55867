"""How can a few rows be multiplied by a frozen weight fastest, and what are the machine's limits?

Question  How fast are products of a few rows with T5-small's weights: in plain torch, packed by oneDNN, in ONNX
          Runtime, and in ONNX Runtime with 7-bit weights? What are the machine's rates for a large matrix product and
          for reading memory?
Method    For each shape, 48 MB of float32 weights, so that few are cached when they are used; all contenders
          interleaved; the median of 9 rounds after one warm-up round.
Output    GFLOP/s of each contender by shape and number of rows; the last line is JSON.

    python -m benchmarks.packed_products [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from model.engine.onnx.models import Precision, ProjectionWriter
from model.engine.onnx.session import Session, to_value
from model.network.projection import Projection

SHAPES = ((512, 1536), (512, 2048), (2048, 512), (512, 32100))  # inputs, outputs
ROWS = (1, 20, 60, 640)
BYTES_OF_WEIGHTS = 48_000_000
ROUNDS = 9
PRECISIONS: dict[str, Precision] = {"onnx": "float32", "onnx-int8": "int8"}


@dataclass(frozen=True)
class Result:
    """GFLOP/s by contender, for one shape and number of rows."""

    inputs: int
    outputs: int
    rows: int
    rates: dict[str, float]


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
    fed = {"x": to_value(x)}
    sessions = {name: _session(plain, precision) for name, precision in PRECISIONS.items()}
    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: [each(x) for each in plain],
        "packed": lambda: [each(x) for each in packed],
        "onnx": lambda: sessions["onnx"].run(fed),
        "onnx-int8": lambda: sessions["onnx-int8"].run(fed),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS + 1):
        for name, action in sides.items():
            times[name].append(seconds(action))
    gflop = 2e-9 * rows * inputs * outputs * number
    return Result(inputs, outputs, rows, {name: gflop / statistics.median(each[1:]) for name, each in times.items()})


def _session(projections: Sequence[Projection], precision: Precision) -> Session:
    """One graph with all products, independent of each other."""
    writer = ProjectionWriter(precision)
    x = writer.input("x")
    for number, projection in enumerate(projections):
        writer.output(f"y{number}", writer.project(x, f"w{number}", projection))
    return Session("products", writer, torch.get_num_threads())


def machine_rates() -> dict[str, float]:
    """GFLOP/s of a large product, and GB/s of a sum over memory."""
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
    print(f"{'weight':>14} {'rows':>5} {'plain':>10} {'packed':>10} {'onnx':>10} {'onnx-int8':>10}   GFLOP/s")
    results = []
    for inputs, outputs in SHAPES:
        for rows in ROWS:
            result = compare(inputs, outputs, rows)
            results.append(result)
            cells = " ".join(f"{rate:>10.0f}" for rate in result.rates.values())
            print(f"{f'{inputs} x {outputs}':>14} {rows:>5} {cells}")
    print(json.dumps({"benchmark": "packed_products", **rates, "results": [asdict(result) for result in results]}))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
