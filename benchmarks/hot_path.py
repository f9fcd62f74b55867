"""How much of a processor does the service need for one recommendation, the engine apart?

Question  CPU time per `POST /recommend/sequential` and answers per second, with an engine that answers at once. What do
          ASGI and FastAPI cost alone? How does another checkout do in the same run?
Method    Each subject is a process of its own, under 16 keep-alive connections that each send the next request when the
          last is answered; the load comes from this process. Subjects take turns. CPU times are the kernel's, by
          thread: the event loop's, and all others' (lane, log). `split` is the service with two workers: `workers` is
          the CPU time of both for a request, `loop` and `others` that of the engine process. `asgi` answers with
          prepared bytes, `fastapi` validates the same body and answer models. The catalog is that of Toys if DATA has
          it, otherwise made up in its size.
Output    Medians over rounds of CPU microseconds per request, answers per second and latencies, and the least CPU time
          of a round; ratios to the baseline are medians over rounds. The last line is JSON.

    python -m benchmarks.hot_path [--baseline CHECKOUT] [--requests 1000] [--rounds 12] [--connections 16]
            [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOMAIN = "toys"
NUM_ITEMS = 11_924
NUM_BODIES = 512
NUM_WORKERS = 2
PATIENCE_S = 120
WARM_UP = 100


@dataclass(frozen=True)
class Subject:
    """A server to measure."""

    name: str
    kind: str
    root: Path


@dataclass
class Server:
    """A running subject, and what was measured of it in each round."""

    subject: Subject
    process: subprocess.Popen[bytes]
    port: int
    rounds: list[dict[str, float]] = field(default_factory=list)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, of the event loop's thread and of all others."""
        times = {"loop": 0.0, "others": 0.0, "workers": 0.0}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            name = "loop" if int(task.name) == self.process.pid else "others"
            times[name] += _cpu_s(task)
            for child in (task / "children").read_text().split():
                times["workers"] += sum(_cpu_s(each) for each in Path(f"/proc/{child}/task").iterdir())
        return times


def _cpu_s(task: Path) -> float:
    return int((task / "schedstat").read_text().split()[0]) / 1e9


class Client(asyncio.Protocol):
    """One connection that sends a request as soon as the last is answered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        self._received = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self._load.fail(head + body)
            return
        self._load.latencies_s.append(time.perf_counter() - self._sent_at)
        self._send()

    def _send(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]  # a stream's

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.note_end(exc)


class Load:
    """A number of requests to send over several connections."""

    def __init__(self, requests: list[bytes], total: int, num_connections: int) -> None:
        self._requests, self._left = requests, total
        self._num_open = self._num_connections = num_connections
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_s: list[float] = []

    def next_request(self) -> bytes | None:
        if not self._left:
            return None
        self._left -= 1
        return self._requests[self._left % len(self._requests)]

    def fail(self, answer: bytes) -> None:
        if not self._ended.done():
            self._ended.set_exception(RuntimeError(f"not a recommendation: {answer[:2000]!r}"))

    def note_end(self, error: Exception | None) -> None:
        self._num_open -= 1
        if not self._ended.done() and (error is not None or not self._num_open):
            self._ended.set_result(None)

    async def run(self, port: int) -> float:
        """Seconds that it took."""
        started_at = time.perf_counter()
        for _ in range(self._num_connections):
            await asyncio.get_running_loop().create_connection(lambda: Client(self), "127.0.0.1", port)
        await asyncio.wait_for(self._ended, PATIENCE_S)
        return time.perf_counter() - started_at


async def send(requests: list[bytes], total: int, port: int, num_connections: int) -> tuple[float, list[float]]:
    load = Load(requests, total, num_connections)
    return await load.run(port), load.latencies_s


def measure(server: Server, requests: list[bytes], total: int, num_connections: int) -> dict[str, float]:
    import uvloop  # noqa: PLC0415  # servers with an older checkout need nothing of this

    uvloop.run(send(requests, WARM_UP, server.port, num_connections))
    before = server.cpu_s()
    seconds, latencies_s = uvloop.run(send(requests, total, server.port, num_connections))
    after = server.cpu_s()
    cpu_us = {name: (after[name] - before[name]) / total * 1e6 for name in before}
    ordered_ms = sorted(each * 1000 for each in latencies_s)
    return {
        "cpu_us": sum(cpu_us.values()),
        "loop_us": cpu_us["loop"],
        "others_us": cpu_us["others"],
        "workers_us": cpu_us["workers"],
        "per_s": total / seconds,
        "p50_ms": ordered_ms[len(ordered_ms) // 2],
        "p99_ms": ordered_ms[int(len(ordered_ms) * 0.99)],
    }


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians, and the least CPU time of a round, which other work on the machine inflates the least."""
    medians = {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}
    return {"least_us": round(min(each["cpu_us"] for each in rounds), 2), **medians}


def ratios(rounds: list[dict[str, float]], baseline: list[dict[str, float]]) -> dict[str, float]:
    """Medians over rounds of each figure relative to the baseline's in the same round."""
    pairs = list(zip(rounds, baseline, strict=True))
    return {
        name: round(statistics.median(one[name] / other[name] for one, other in pairs), 3)
        for name in rounds[0]
        if all(other[name] for other in baseline)
    }


# What is served


def write_bundle(root: Path, data: Path) -> list[str]:
    """A bundle with a network of no importance; returns the item ids."""
    import numpy as np  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    from benchmarks import toys_bundle  # noqa: PLC0415
    from benchmarks.random_weights import initial_weights  # noqa: PLC0415
    from model.bundle.catalog import Catalog  # noqa: PLC0415
    from model.bundle.features import ItemFeatures  # noqa: PLC0415
    from model.bundle.layout import DomainSpec, ImageEncoder  # noqa: PLC0415
    from model.bundle.shapes import expected_domain_shapes, expected_shapes  # noqa: PLC0415
    from model.bundle.writer import BundleWriter  # noqa: PLC0415
    from model.network.config import BackboneConfig  # noqa: PLC0415
    from tests.tiny import tiny_tokenizer  # noqa: PLC0415

    has_toys = (data / "amazon" / "toys" / "items.jsonl.gz").exists()
    tokenizer = Tokenizer.from_file(str(data / "t5-tokenizer" / "tokenizer.json")) if has_toys else tiny_tokenizer()
    rows = toys_bundle._rows(data) if has_toys else _made_up_rows()  # noqa: SLF001
    config = BackboneConfig(
        vocab_size=tokenizer.get_vocab_size() if not has_toys else toys_bundle.CONFIG.vocab_size,
        d_model=16,
        d_kv=4,
        d_ff=16,
        num_heads=2,
        num_layers=1,
        num_decoder_layers=1,
    )
    catalog = Catalog.from_rows(rows)
    layout = toys_bundle.LAYOUT
    features = np.random.default_rng(7).standard_normal((len(catalog), layout.feature_dim)).astype(np.float16)
    spec = DomainSpec(name=DOMAIN, layout=layout, backbone_sha256="", encoder=ImageEncoder("random", 512))
    with BundleWriter(root) as writer:
        writer.share_backbone(config, initial_weights(expected_shapes(config), 7), tokenizer)
        adapter = initial_weights(expected_domain_shapes(config, layout), 8)
        writer.add_domain(spec, adapter, catalog, features=ItemFeatures(catalog.item_ids, features))
        writer.seal()
    return list(catalog.item_ids)


def _made_up_rows() -> list[dict[str, str]]:
    draw = random.Random(7)
    words = ["toy", "the", "of", "star", "item", "history"]
    return [
        {"item_id": f"B{number:09}", "index": str(number), "title": " ".join(draw.choices(words, k=8))}
        for number in range(1, NUM_ITEMS + 1)
    ]


def requests_of(item_ids: list[str]) -> list[bytes]:
    draw = random.Random(1)
    requests = []
    for number in range(NUM_BODIES):
        history = draw.choices(item_ids, k=draw.randrange(3, 12))
        body = json.dumps({"domain": DOMAIN, "history": history, "user_id": f"u{number}", "k": 10}).encode()
        head = (
            "POST /recommend/sequential HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: python-httpx/0.28\r\n"
            "Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


# Servers, each in a process of its own


def serve(kind: str, bundle: Path, port: int) -> None:
    if kind in {"service", "split"}:
        _serve_service(bundle, port, NUM_WORKERS if kind == "split" else 0)
        return
    import uvicorn  # noqa: PLC0415

    app = _asgi() if kind == "asgi" else _fastapi()
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off")


def _serve_service(bundle: Path, port: int, num_workers: int) -> None:
    from dataclasses import replace  # noqa: PLC0415

    from service.answering.service import load  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415

    server: Any = import_module("service.processes.engine" if num_workers else "service.http.server")
    create_app = server.create_app

    def loader(settings: Any) -> Any:  # noqa: ANN401  # of whichever checkout
        runtime = load(settings)
        leaves = runtime.domains[DOMAIN].trie.num_leaves
        return replace(runtime, engine=_instant_engine(leaves))

    server.create_app = lambda settings: create_app(settings, loader=loader)
    settings = Settings(bundle=bundle, port=port, engine="torch")
    if num_workers:
        server.run_engine(settings, num_workers)
    else:
        server.run_server(settings)


def _instant_engine(num_leaves: int) -> Any:  # noqa: ANN401  # of whichever checkout
    import numpy as np  # noqa: PLC0415

    from model.engine.protocol import Ranking, Timings  # noqa: PLC0415

    draw = np.random.default_rng(0)
    leaves = [draw.permutation(num_leaves)[:100].astype(np.int64) for _ in range(16)]
    scores = -np.linspace(1, 5, 100)

    class Texts:
        num_free = 64

    class InstantEngine:
        num_slots = 1

        def place(self, slot: int, placement: object) -> None:
            """Nothing to place."""

        def vacate(self, slot: int) -> None:
            """Nothing to vacate."""

        def widened(self, plan: object, ranking: object) -> None:
            """Never."""

        def search(self, batch: Any) -> Any:  # noqa: ANN401
            found = [
                Ranking(leaves[n % 16][: plan.k], scores[: plan.k], 5, plan.num_beams) for n, plan in enumerate(batch)
            ]
            return found, Timings(0.0001, 0.0001)

        def open_texts(self, num_rows: int) -> Texts:  # noqa: ARG002
            return Texts()

    return InstantEngine()


def _answer() -> Any:  # noqa: ANN401
    from service.schemas.ranking import RankedItem, RankingAnswer  # noqa: PLC0415

    title, attributes = "A title of a toy of usual length, 8 pieces", {"category": "toys"}
    items = [
        RankedItem(rank=n, item_id=f"B{n:09}", score=-n / 3, title=title, image=None, attributes=attributes)
        for n in range(1, 11)
    ]
    return RankingAnswer(
        items=items,
        exact_prefix=5,
        num_beams_effective=20,
        degraded=[],
        domain=DOMAIN,
        bundle="0" * 64,
        catalog_revision=0,
        request_id="0" * 32,
    )


def _asgi() -> Any:  # noqa: ANN401
    content = _answer().model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]

    async def app(_scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


def _fastapi() -> Any:  # noqa: ANN401
    from fastapi import FastAPI  # noqa: PLC0415

    from service.schemas.ranking import RankingAnswer, SequentialRequest  # noqa: PLC0415

    app, answer = FastAPI(), _answer()

    async def recommend(body: SequentialRequest) -> RankingAnswer:  # noqa: ARG001
        return answer  # type: ignore[no-any-return]

    recommend.__annotations__ = {"body": SequentialRequest, "return": RankingAnswer}
    app.post("/recommend/sequential", response_model=RankingAnswer)(recommend)
    return app


@contextmanager
def running(subject: Subject, bundle: Path) -> Iterator[Server]:
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIP5_")}
    environment |= {"PYTHONPATH": str(subject.root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--serve", subject.kind, "--bundle", str(bundle), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=subject.root, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        _wait_ready(process, port, "/health/ready" if subject.kind in {"service", "split"} else None)
        yield Server(subject, process, port)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_ready(process: subprocess.Popen[bytes], port: int, path: str | None) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1.0) as one:
                if path is None:
                    return
                one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                if b" 200 " in one.recv(4096)[:16]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server does not answer at port {port}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="another checkout of this repository")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", default="", help="names of subjects, separated by commas (default: all)")
    parser.add_argument("--serve", choices=("asgi", "fastapi", "service", "split"), help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        sys.path.pop(0)  # this folder; the checkout's root comes from PYTHONPATH
        serve(options.serve, options.bundle, options.port)
        return 0
    subjects = [Subject(kind, kind, ROOT) for kind in ("asgi", "fastapi", "service", "split")]
    if options.baseline:
        subjects.append(Subject("baseline", "service", options.baseline.resolve()))
    names = set(options.only.split(",")) - {""}
    subjects = [each for each in subjects if not names or each.name in names]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bundle = Path(folder) / "bundle"
        requests = requests_of(write_bundle(bundle, options.data))
        servers = [stack.enter_context(running(each, bundle)) for each in subjects]
        for _ in range(options.rounds):
            for server in servers:
                server.rounds.append(measure(server, requests, options.requests, options.connections))
    found = {server.subject.name: summary(server.rounds) for server in servers}
    rounds = {server.subject.name: server.rounds for server in servers}
    for name in {"service", "split"} & rounds.keys():
        if "baseline" in rounds:
            found[f"{name} / baseline"] = ratios(rounds[name], rounds["baseline"])
    for name, figures in found.items():
        print(f"{name:10}", *(f"{key} {value:9.2f}" for key, value in figures.items()))
    print(json.dumps({"benchmark": "hot_path", "requests": options.requests, "rounds": options.rounds, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
