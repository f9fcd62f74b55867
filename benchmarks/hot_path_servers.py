"""What benchmarks.hot_path serves: a bundle of a catalog's size, requests for it, and servers that answer them.

Also the program of each server's process, in whichever checkout is on its path:

    python benchmarks/hot_path_servers.py --serve service --bundle BUNDLE --port 8000
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

DOMAIN = "toys"
NUM_ITEMS = 11_924
NUM_BODIES = 512
NUM_WORKERS = 2
KINDS = ("asgi", "fastapi", "service", "split")


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


# Servers


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

    try:
        settings_type: Any = import_module("service.settings.settings").Settings
    except ModuleNotFoundError:  # an older checkout
        settings_type = import_module("service.settings").Settings
    server: Any = import_module("service.processes.engine" if num_workers else "service.http.server")
    create_app = server.create_app

    def loader(settings: Any) -> Any:  # noqa: ANN401  # of whichever checkout
        runtime = load(settings)
        leaves = runtime.domains[DOMAIN].trie.num_leaves
        return replace(runtime, engine=instant_engine(leaves))

    server.create_app = lambda settings: create_app(settings, loader=loader)
    settings = settings_type(bundle=bundle, port=port, engine="torch")
    if num_workers:
        server.run_engine(settings, num_workers)
    else:
        server.run_server(settings)


def instant_engine(num_leaves: int) -> Any:  # noqa: ANN401  # of whichever checkout
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=KINDS, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    sys.path.pop(0)  # this folder; the checkout's root comes from PYTHONPATH
    serve(options.serve, options.bundle, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
