"""Files of a served bundle that change on disk: every file, every way, while the service answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import ROOT, Server, serving
from tests.tiny import tiny_bundle

ON_DISK = "import model.bundle.feature_file as f; f.MOST_HELD_BYTES = 0"
"""Python starts with this in every process, so that every file of embeddings is a large one."""
FEATURES = "domains/toys/features.safetensors"
FILES = (
    "manifest.json",
    "backbone/config.json",
    "backbone/model.safetensors",
    "backbone/tokenizer.json",
    "domains/toys/adapter.safetensors",
    "domains/toys/catalog.parquet",
    "domains/toys/domain.json",
    FEATURES,
    "domains/toys/users.parquet",
)
HISTORY = [f"item-{number}" for number in (1, 2, 3, 118)]  # rows at both ends of the file
BODIES = {
    "sequential": {"domain": "toys", "history": HISTORY, "k": 5},
    "direct": {"domain": "toys", "user_id": "shopper-1", "candidates": HISTORY, "k": 3},
}


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def truncate_by_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    content = bytes(byte ^ 0x15 for byte in path.read_bytes())
    with path.open("r+b") as file:
        file.write(content)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    other.replace(path)


def remove(path: Path) -> None:
    path.unlink()


FAULTS = (truncate, truncate_by_half, overwrite, replace, remove)
IN_PLACE = (truncate, truncate_by_half, overwrite)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


@dataclass(frozen=True)
class Service:
    server: Server
    client: httpx.Client

    def answers(self) -> list[dict[str, Any]]:
        """What does not change from one request to the next."""
        found = []
        for route, body in BODIES.items():
            answer = self.client.post(f"/recommend/{route}", json=body)
            assert answer.status_code == 200, answer.text
            found.append({name: answer.json()[name] for name in ("items", "degraded")})
        assert self.client.get("/health/live").status_code == 200
        return found

    def await_degraded(self, is_as_due: Callable[[str], bool]) -> str:
        """What the probe says once it says what it should."""
        while True:
            assert self.server.process.poll() is None, "the process has ended"
            text = " ".join(self.client.get("/health/ready").json()["degraded"])
            if is_as_due(text):
                return text


@contextmanager
def service(root: Path, started: Path | None = None) -> Iterator[Service]:
    """`started` is a folder with what Python starts with."""
    path = {} if started is None else {"PYTHONPATH": f"{started}{os.pathsep}{ROOT}"}
    with (
        serving(root, {"VIP5_FILES_CHECK_S": "0.02", **path}) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield Service(server, client)


@pytest.fixture(scope="module")
def held(root: Path, num_workers: int) -> Iterator[Service]:
    with service(root) as running:
        yield running


@pytest.fixture(scope="module")
def on_disk(root: Path, tmp_path_factory: pytest.TempPathFactory, num_workers: int) -> Iterator[Service]:
    started = tmp_path_factory.mktemp("started")
    (started / "sitecustomize.py").write_text(ON_DISK)
    with service(root, started) as running:
        yield running


def put_back(path: Path, content: bytes) -> None:
    """In place, where the file is still there, as `cp` does."""
    path.write_bytes(content)


def test_the_bundle_has_no_other_files(root: Path) -> None:
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == sorted(FILES)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", FILES)
def test_answers_stay_as_they_were_and_the_change_is_reported(
    root: Path, held: Service, name: str, fault: Callable[[Path], None]
) -> None:
    path, before = root / name, held.answers()
    content = path.read_bytes()
    fault(path)
    try:
        assert held.answers() == before
        text = held.await_degraded(lambda text: name in text)
        assert f"the bundle {root.name} on disk is not the one that is served: {name} was " in text
        assert "put the original files back" in text
        assert held.answers() == before
    finally:
        put_back(path, content)
    held.await_degraded(lambda text: not text)
    assert held.answers() == before


@pytest.mark.parametrize("fault", IN_PLACE, ids=lambda fault: fault.__name__)
def test_embeddings_that_were_changed_in_place_count_as_missing_until_they_are_back(
    root: Path, on_disk: Service, fault: Callable[[Path], None]
) -> None:
    path, before = root / FEATURES, on_disk.answers()
    content = path.read_bytes()
    fault(path)
    try:
        during = on_disk.answers()
        reasons = [each for answer in during for each in answer["degraded"] if each["kind"] == "missing_features"]
        assert reasons
        assert "features.safetensors of the domain toys was changed on disk" in reasons[0]["detail"]
        on_disk.await_degraded(lambda text: "embeddings that were read count as missing" in text and FEATURES in text)
        metrics = on_disk.client.get("/metrics").text
        assert "vip5_feature_values_rejected_total 0.0" not in metrics
    finally:
        put_back(path, content)
    assert on_disk.answers() == before
    on_disk.await_degraded(lambda text: not text)


@pytest.mark.parametrize("fault", [replace, remove], ids=lambda fault: fault.__name__)
def test_embeddings_on_disk_are_those_of_the_file_that_was_verified(
    root: Path, on_disk: Service, fault: Callable[[Path], None]
) -> None:
    path, before = root / FEATURES, on_disk.answers()
    content = path.read_bytes()
    fault(path)
    try:
        assert on_disk.answers() == before
        on_disk.await_degraded(lambda text: FEATURES in text)
    finally:
        put_back(path, content)


def test_answers_do_not_depend_on_where_embeddings_are(held: Service, on_disk: Service) -> None:
    assert held.answers() == on_disk.answers()
