"""What does a catalog of a million items cost at the start, and in each further process?

Question  How long does a service with a million items take to start, the first time and with a compiled index; how much
          memory does a further process take that plans requests; what does a look-up cost, and a change?
Method    A tiny network, so that what is measured is the catalog; T5's tokenizer from ../shared, else the tests'.
          Each start is a process of its own: it imports, opens the bundle, places it in an engine, and plans and ranks
          one request. The second start hands the index's descriptor to a worker, which imports no torch and plans 1,000
          requests of 7 items. Private memory is that of /proc/self/smaps without the index, which all processes share.
          CPU times are the process's own, all threads together; other work on the machine lengthens the rest only.
Output    A line for each figure; the last line is JSON.

    python -m benchmarks.million_items [--items 1000000] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENIZER = Path("../shared/data/t5-tokenizer/tokenizer.json")
DOMAIN = "million"
HISTORY = 7
NUM_PLANS = 1000

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keeps the bundle for another run (default: a temporary folder)")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    parser.add_argument("--role", choices=("start", "worker"), help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "worker":
        print(json.dumps(_work(options.folder, options.descriptor)))
    elif options.role == "start":
        print(json.dumps(_start(options.folder)))
    else:
        with tempfile.TemporaryDirectory(prefix="million-") as temporary:
            _compare(options.items, options.folder or Path(temporary), options.tokenizer)


def _compare(num_items: int, folder: Path, tokenizer: Path) -> None:
    if not (folder / "bundle").exists():
        _build(folder / "bundle", num_items, tokenizer)
    shutil.rmtree(folder / "indexes", ignore_errors=True)
    figures = {name: _run("start", folder) for name in ("first", "second")}
    for start, values in figures.items():
        for name, value in values.items():
            print(f"{start:8} {name:44} {value:10,.3f}")
    print(json.dumps({"items": num_items, **figures}))


def _run(role: str, folder: Path, descriptor: int | None = None) -> Figures:
    command = [sys.executable, "-m", "benchmarks.million_items", "--role", role, "--folder", str(folder)]
    passed = () if descriptor is None else (descriptor,)
    extra = [] if descriptor is None else ["--descriptor", str(descriptor)]
    done = subprocess.run([*command, *extra], pass_fds=passed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _start(folder: Path) -> Figures:
    """A service's start up to a first ranking; with its figures, those of a worker."""
    begin = time.perf_counter()
    from model.bundle.bundle import Opening
    from model.bundle.changes import CatalogChanges, with_added, with_values
    from model.bundle.index.cache import IndexCache
    from model.engine.offline import rank
    from model.engine.plans import RankingPlan
    from model.planning.queries import OfflineSequential
    from model.planning.rankings import plan_sequential
    from model.planning.runtime import load_runtime

    imported, import_cpu = time.perf_counter(), time.process_time()
    runtime = load_runtime(folder / "bundle", engine="torch", opening=Opening(indexes=IndexCache(folder / "indexes")))
    domain, files = runtime.domains[DOMAIN], runtime.files[DOMAIN]
    history = tuple(domain.catalog.item_ids[row] for row in range(HISTORY))
    plan = plan_sequential(domain, OfflineSequential(history=history))
    assert isinstance(plan, RankingPlan)
    rank(runtime.engine, [plan])
    ready, ready_cpu = time.perf_counter(), time.process_time()
    assert files.index is not None
    figures = {
        "import, s": imported - begin,
        "import to first ranking, s": ready - imported,
        "start, s": ready - begin,
        "import, CPU s": import_cpu,
        "import to first ranking, CPU s": ready_cpu - import_cpu,
        "private memory, MB": _private_mb(),
        "index, MB": files.index.memory.size / 1e6,
    }
    revised = CatalogChanges(values={history[0]: {"title": "another title"}}, active={history[1]: False})
    figures["a title and an item out of stock, CPU s"] = _timed(lambda: with_values(domain.catalog, revised))
    added = CatalogChanges(added=({"item_id": "new", "index": "987654321", "title": "new"},))
    figures["an item added, CPU s"] = _timed(lambda: with_added(files, added, domain.tokenizer))
    worker = _run("worker", folder, files.index.memory.descriptor)
    return figures | {f"worker: {name}": value for name, value in worker.items()}


def _work(folder: Path, descriptor: int) -> Figures:
    """A process that only plans."""
    begin = time.perf_counter()
    from model.bundle.documents import parse_domain_spec
    from model.bundle.domain_tables import tables_of
    from model.bundle.index.index import Index
    from model.bundle.index.sealed import SealedMemory
    from model.planning.domain import ServedDomain
    from model.planning.queries import OfflineSequential
    from model.planning.rankings import plan_sequential
    from model.prompts.tokenizer import TextTokenizer

    imported, imports_mb = time.perf_counter(), _private_mb()
    tokenizer = TextTokenizer.from_file(folder / "bundle/backbone/tokenizer.json")
    tokenizer_read, tokenizer_mb = time.perf_counter(), _private_mb()
    index = Index.open(SealedMemory(descriptor))
    spec = parse_domain_spec((folder / f"bundle/domains/{DOMAIN}/domain.json").read_bytes(), DOMAIN)
    domain = ServedDomain.of(0, tables_of(spec, index), tokenizer, "0" * 64)
    domain.eligible({})
    opened, cpu = time.perf_counter(), time.process_time()
    item_ids, size = domain.catalog.item_ids, len(domain.catalog)
    histories = [
        tuple(item_ids[(each * 7919 + place * 104_729) % size] for place in range(HISTORY)) for each in range(NUM_PLANS)
    ]
    planned = _timed(lambda: [plan_sequential(domain, OfflineSequential(history=each)) for each in histories])
    looked_up = _timed(lambda: [domain.catalog.row_of(item_id) for item_id, *_ in histories])
    assert "torch" not in sys.modules
    return {
        "import, s": imported - begin,
        "tokenizer, s": tokenizer_read - imported,
        "open the index, s": opened - tokenizer_read,
        "CPU until the index is open, s": cpu,
        "private memory after the imports, MB": imports_mb,
        "private memory with the tokenizer, MB": tokenizer_mb,
        "private memory after 1,000 plans, MB": _private_mb(),
        "1,000 plans, CPU s": planned,
        "1,000 look-ups, CPU ms": looked_up * 1e3,
    }


def _private_mb() -> float:
    """Private memory of this process, without memory files, whose pages count as private while one process has them."""
    total, is_counted = 0, True
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ", 1)[0] and ":" not in line.split(" ", 1)[0]:
            is_counted = "/memfd:" not in line
        elif is_counted and line.startswith("Private_"):
            total += int(line.split()[1])
    return total * 1024 / 1e6


def _timed(run: Callable[[], Any]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def _build(root: Path, num_items: int, path: Path) -> None:
    """A bundle with a tiny network, and items whose identifiers are their numbers, as in VIP5."""
    import pyarrow as pa
    from tokenizers import Tokenizer

    from benchmarks.random_weights import initial_weights
    from model.bundle.catalog import Catalog
    from model.bundle.layout import DomainSpec
    from model.bundle.shapes import expected_domain_shapes, expected_shapes
    from model.bundle.writer import BundleWriter
    from model.network.config import BackboneConfig, DomainLayout
    from tests.tiny import tiny_tokenizer

    tokenizer = Tokenizer.from_file(str(path)) if path.exists() else tiny_tokenizer()
    vocab_size = tokenizer.get_vocab_size()
    config = BackboneConfig(
        vocab_size=vocab_size, d_model=16, d_kv=4, d_ff=32, num_heads=4, num_layers=2, num_decoder_layers=2
    )
    layout = DomainLayout(
        bottleneck=4,
        cross_attention_adapter=True,
        one_adapter_for_all_tasks=True,
        visual_tokens=0,
        feature_dim=0,
        visual_norm=False,
        whole_word_rows=1024,
        category_rows=16,
    )
    numbers = range(1, num_items + 1)
    table = pa.table(
        {
            "item_id": [f"B{number:09d}" for number in numbers],
            "index": [str(number) for number in numbers],
            "title": [f"Product number {number} of a line of toys" for number in numbers],
            "image": [f"images/{number}.jpg" for number in numbers],
            "category": [f"category {number % 50}" for number in numbers],
            "price": [number % 1000 / 4 for number in numbers],
        }
    )
    with BundleWriter(root) as writer:
        writer.share_backbone(config, initial_weights(expected_shapes(config), 1), tokenizer)
        spec = DomainSpec(name=DOMAIN, layout=layout, backbone_sha256="", encoder=None, trained=False)
        adapter = initial_weights(expected_domain_shapes(config, layout), 2)
        writer.add_domain(spec, adapter, Catalog.from_table(table, "the catalog"))
        writer.seal()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
