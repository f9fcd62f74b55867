from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from demo.designs import LOOKS
from demo.make import Places, Recipe, main, make
from model.bundle.bundle import Bundle, open_bundle
from model.bundle.manifest import read_manifest
from model.datasets.dataset import Dataset
from tests.unit.demo.catalogs import without_counts

ROOT = Path(__file__).parents[3]
TINY = Recipe(
    looks=LOOKS[:8],
    num_clip_pictures=12,
    num_clip_held_out=4,
    num_clip_steps=2,
    num_customers=30,
    num_held_out=20,
    num_steps=2,
)
NUM_ITEMS = 3 * len(TINY.looks)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    places = Places(tmp_path_factory.mktemp("demo") / "bundle")
    make(places.bundle, TINY)
    return places


@pytest.fixture(scope="module")
def bundle(places: Places) -> Bundle:
    return open_bundle(places.bundle)


def test_the_demonstration_is_a_bundle_of_two_tuned_domains(bundle: Bundle) -> None:
    assert sorted(bundle.domains) == ["garments", "toys"]
    for domain in bundle.domains.values():
        assert len(domain.catalog) == NUM_ITEMS
        assert domain.spec.trained
        assert domain.spec.encoder is not None
        assert domain.spec.encoder.name == "demo-clip"
        assert domain.features_path is not None


def test_the_comparison_is_a_bundle_of_the_same_dimensions_without_pictures(places: Places, bundle: Bundle) -> None:
    text = open_bundle(places.text_bundle)
    assert text.backbone.config == bundle.backbone.config
    assert text.backbone.sha256 != bundle.backbone.sha256
    assert {domain.spec.layout.visual_tokens for domain in text.domains.values()} == {0}
    assert {domain.spec.layout.visual_tokens for domain in bundle.domains.values()} == {2}


def test_identifiers_are_made_of_codes_that_the_shops_do_not_share(places: Places, bundle: Bundle) -> None:
    words = {}
    for name, domain in bundle.domains.items():
        assert domain.codebook is not None
        assert domain.codebook.projection is not None
        assert all(domain.codebook.codes_of(index) is not None for index in domain.catalog.indices)
        assert len(set(domain.catalog.indices)) == NUM_ITEMS
        words[name] = {word for index in domain.catalog.indices for word in index.split()}
        for run in ("backbone", "adapters"):
            assert Dataset.read(places.work / f"{name}-{run}").catalog.indices == domain.catalog.indices
    assert not words["toys"] & words["garments"]


def test_items_of_summer_have_codes_that_were_trained_on(bundle: Bundle) -> None:
    for domain in bundle.domains.values():
        known: set[str] = set()
        new: set[str] = set()
        for row, index in enumerate(domain.catalog.indices):
            is_new = domain.catalog.attributes(row)["range"] == "summer"
            (new if is_new else known).add(index.rsplit(" ", 1)[0])
        assert new <= known


def test_chains_that_are_trained_at_once_have_the_same_result(places: Places, tmp_path: Path) -> None:
    """What does not depend on a chain is copied, to save time."""
    again = Places(tmp_path / "bundle")
    shutil.copytree(places.clip, again.clip)
    make(again.bundle, TINY, num_processes=2)
    assert _digests(again.bundle) == _digests(places.bundle)
    assert _digests(again.text_bundle) == _digests(places.text_bundle)


def test_what_was_made_is_not_made_again(places: Places, bundle: Bundle) -> None:
    trained = places.work / "bundle" / "manifest.json"
    before = trained.stat().st_mtime_ns
    again = Places(places.bundle.with_name("again"))
    places.work.rename(again.work)
    places.clip.rename(again.clip)
    try:
        assert make(again.bundle, TINY) == bundle.hash
    finally:
        again.work.rename(places.work)
        again.clip.rename(places.clip)
    assert trained.stat().st_mtime_ns == before


def test_another_process_makes_the_same_bundle(places: Places, tmp_path: Path) -> None:
    settings = ", ".join(f"{name}={value}" for name, value in asdict(TINY).items() if name != "looks")
    code = (
        "import torch; torch.set_num_threads(1); from pathlib import Path; from demo.designs import LOOKS; "
        f"from demo.make import Recipe, make; make(Path('bundle'), Recipe(looks=LOOKS[:8], {settings}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "42"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)
    for name in ("bundle", "bundle-text"):
        assert _digests(tmp_path / name) == _digests(places.bundle.with_name(name))


def test_every_item_has_its_picture(places: Places, bundle: Bundle) -> None:
    for domain in bundle.domains.values():
        for image in domain.catalog.images:
            assert image is not None
            with Image.open(places.pictures / image, formats=["WEBP"]) as picture:
                assert picture.size == (128, 128)


def test_held_out_customers_are_known_to_the_bundle_and_were_not_trained_on(places: Places, bundle: Bundle) -> None:
    for name, domain in bundle.domains.items():
        held_out = Dataset.read(places.held_out / name)
        user_ids = [str(user_id) for user_id in held_out.users.table.column("user_id").to_pylist()]
        assert len(user_ids) == TINY.num_held_out
        assert domain.users is not None
        assert all(domain.users.row_of(user_id) is not None for user_id in user_ids)
        for run in ("backbone", "adapters"):
            tuned_on = Dataset.read(places.work / f"{name}-{run}")
            bought = {tuned_on.users.table.column("user_id")[user].as_py() for user in range(TINY.num_customers)}
            assert not bought & set(user_ids)
        assert without_counts(held_out.catalog).equals(without_counts(domain.catalog))


def test_requests_speak_of_known_users_and_items(places: Places, bundle: Bundle) -> None:
    bodies = [json.loads(line) for line in places.requests.read_text().splitlines()]
    assert {body["task"] for body in bodies} == {"sequential", "direct", "explanation"}
    for body in bodies:
        domain = bundle.domains[body["domain"]]
        assert domain.users is not None
        assert domain.users.row_of(body["user_id"]) is not None
        item_ids = body.get("history") or body.get("candidates") or [body["item_id"]]
        assert all(domain.catalog.row_of(item_id) is not None for item_id in item_ids)


def test_a_folder_that_exists_is_left_alone(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_manifest(places.bundle).hash
    assert main(["--out", str(places.bundle)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert read_manifest(places.bundle).hash == before


def _digests(bundle: Path) -> dict[str, str]:
    """Of all files but the training's records, which say how long it took."""
    files = read_manifest(bundle).files
    return {str(path): record.sha256 for path, record in files.items() if path.name != "training.json"}
