"""Items that are added without an identifier are recommended by the next request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle.bundle import open_bundle
from model.bundle.codebook import Codebook, Projection
from model.bundle.summary import summarise
from model.bundle.writer import BundleWriter
from model.datasets.dataset import Dataset, Provenance, Sequences
from model.datasets.semantic import with_codebook
from tests.commands import run
from tests.service.live import Shop, bundle_of, ids_of, live_settings, shop_of
from tests.tiny import tiny_catalog, tiny_features

NUM_PATHS, NUM_LAST, DIM = 6, 8, 8
EVERYTHING: dict[str, Any] = {"k": 42, "num_beams": 100, "exclude_history": False}


def codebook(first_word: int = 50) -> Codebook:
    """Six paths of 2x3 codes, at the ends of six axes of the embeddings."""
    levels = (np.zeros((2, NUM_PATHS), np.float32), np.zeros((3, NUM_PATHS), np.float32))
    seen = np.array([[path // 3, path % 3] for path in range(NUM_PATHS)], dtype=np.int32)
    for first in range(2):
        levels[0][first, 3 * first : 3 * first + 3] = 0.5
    for second in range(3):
        levels[1][second, [second, 3 + second]] = 0.5
    return Codebook(
        (2, 3),
        NUM_LAST,
        first_word,
        seen,
        levels,
        Projection(np.eye(DIM, NUM_PATHS, dtype=np.float32), np.zeros(NUM_PATHS, np.float32)),
    )


def coded_bundle(root: Path, seed: int, first_word: int = 50) -> Path:
    """A bundle with 36 items, six on each path."""
    catalog = tiny_catalog(36)
    empty = Sequences(np.zeros(0, np.int64), np.zeros(1, np.int64))
    bundle_of(root, seed, catalog=catalog)
    toys = open_bundle(root).domains["toys"]
    assert toys.users is not None
    users = toys.users
    sequences = Sequences(empty.items, np.zeros(len(users) + 1, np.int64))
    dataset = Dataset(Provenance("shop", "test"), catalog, users, sequences)
    book = codebook(first_word)
    coded = with_codebook(dataset, book, np.arange(36) % NUM_PATHS, 0)
    with BundleWriter(root) as writer:
        features = tiny_features(coded.catalog, DIM)
        writer.add_domain(toys.spec, toys.adapter, coded.catalog, users=users, features=features, codebook=book)
        writer.seal()
    return root


def axis(number: int) -> list[float]:
    return [float(place == number) for place in range(DIM)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    coded_bundle(folder / "first", 1)
    coded_bundle(folder / "other-codes", 2, first_word=70)
    bundle_of(folder / "plain" / "first", 1)
    return folder


@pytest.fixture
async def shop(bundles: Path, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop_of(live_settings(bundles, journal=str(tmp_path / "journal"))) as shop:
        yield shop


async def test_a_new_item_is_on_its_path_and_recommended_by_the_next_request(shop: Shop) -> None:
    added = await shop.patch(add=[{"item_id": "new-1", "title": "the new toy", "feature": axis(4)}])
    (index,) = added["indices"].values()
    assert index.startswith("51 53 ")
    page = (await shop.client.get("/domains/toys/items?item_id=new-1&item_id=item-5")).json()["items"]
    assert [each["index"].rsplit(" ", 1)[0] for each in page] == ["51 53", "51 53"]
    assert page[0]["index"] == index
    answer = await shop.ask(**EVERYTHING)
    assert "new-1" in ids_of(answer)
    with_it = await shop.ask(history=["new-1"])
    assert [each["kind"] for each in with_it["degraded"]] == ["untrained_model"]  # its picture is known


async def test_every_replay_has_the_identifier_that_was_chosen(bundles: Path, tmp_path: Path) -> None:
    settings = live_settings(bundles, journal=str(tmp_path / "journal"))
    row = {"item_id": "new-1", "feature": axis(2)}
    async with shop_of(settings) as shop:
        first = await shop.patch(add=[row], idempotency_key="once")
        before = await shop.ask(**EVERYTHING)
    async with shop_of(settings) as shop:
        assert (await shop.ask(**EVERYTHING))["items"] == before["items"]
        assert await shop.patch(add=[row], idempotency_key="once") == first
        problem = await shop.patch(409, add=[row | {"feature": axis(3)}], idempotency_key="once")
        assert problem["code"] == "operation_conflict"


async def test_an_item_that_went_away_keeps_its_identifier(shop: Shop) -> None:
    row = {"item_id": "new-1", "feature": axis(1)}
    (index,) = (await shop.patch(add=[row]))["indices"].values()
    await shop.patch(deactivate=["new-1"])
    assert "new-1" not in ids_of(await shop.ask(**EVERYTHING))
    assert "use activate to recommend it again" in (await shop.patch(422, add=[row]))["detail"]
    await shop.patch(activate=["new-1"])
    assert "new-1" in ids_of(await shop.ask(**EVERYTHING))
    (item,) = (await shop.client.get("/domains/toys/items?item_id=new-1")).json()["items"]
    assert item["index"] == index


async def test_an_identifier_stays_when_a_bundle_with_other_codes_is_loaded(shop: Shop) -> None:
    (index,) = (await shop.patch(add=[{"item_id": "new-1", "feature": axis(4)}]))["indices"].values()
    await shop.load("other-codes", activate=True)
    (later,) = (await shop.patch(add=[{"item_id": "new-2", "feature": axis(4)}]))["indices"].values()
    page = (await shop.client.get("/domains/toys/items?item_id=new-1&item_id=new-2&item_id=item-5")).json()["items"]
    assert {item["item_id"]: item["index"].rsplit(" ", 1)[0] for item in page} == {
        "new-1": "51 53",
        "new-2": "71 73",
        "item-5": "71 73",
    }
    assert {item["index"] for item in page} >= {index, later}
    assert {"new-1", "new-2"} <= set(ids_of(await shop.ask(**EVERYTHING)))


def test_a_bundle_s_summary_names_its_codebook(bundles: Path) -> None:
    (domain,) = summarise(open_bundle(bundles / "other-codes")).domains
    assert domain.codebook is not None
    assert (domain.codebook.sizes, domain.codebook.num_last, domain.codebook.num_paths) == ((2, 3), NUM_LAST, NUM_PATHS)
    assert (domain.codebook.first_word, domain.codebook.names_new_items) == (70, True)
    (plain,) = summarise(open_bundle(bundles / "plain" / "first")).domains
    assert plain.codebook is None


def test_what_is_shown_of_a_bundle_names_its_codebook(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for name in ("first", "plain/first"):
        assert run("bundle", "show", "--bundle", bundles / name) == 0
        shown.append(" ".join(capsys.readouterr().out.replace("│", " ").split()))
    coded, plain = shown
    assert "codebook 2x3 codes, 6 paths, 8 last codes; those of new items are made of their embeddings" in coded
    assert "codebook none, so new items need an index" in plain


async def test_a_full_path_is_passed_over_for_the_next_nearest(shop: Shop) -> None:
    towards = [0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    rows = [{"item_id": f"new-{number}", "feature": towards} for number in range(3)]
    indices = list((await shop.patch(add=rows))["indices"].values())
    assert [index.rsplit(" ", 1)[0] for index in indices] == ["50 53", "50 53", "50 54"]


async def test_what_is_missing_is_named_and_nothing_changes(shop: Shop) -> None:
    for row, words in (
        ({"item_id": "new-1"}, "item 'new-1' has neither an index nor an embedding"),
        ({"item_id": "new-1", "feature": [1.0]}, "the embedding of 'new-1' has width 1, the model takes 8"),
        ({"title": "no id", "feature": axis(0)}, "row 1 has no item_id"),
        ({"item_id": "new-1", "feature": [1e300] * 8}, "feature contains values outside of the float32 range"),
    ):
        problem = await shop.patch(422, add=[row])
        assert words in problem["detail"], row
    assert shop.revision() == 0


async def test_a_domain_without_a_codebook_says_what_it_needs(bundles: Path, tmp_path: Path) -> None:
    async with shop_of(live_settings(bundles / "plain", journal=str(tmp_path / "journal"))) as shop:
        problem = await shop.patch(422, add=[{"item_id": "new-1", "feature": axis(0)}])
        assert "row 1 has no index, and the domain 'toys' has no codebook" in problem["detail"]
        assert "vip5 data index --method residual" in problem["detail"]
        answer = await shop.patch(add=[{"item_id": "new-1", "index": "77", "feature": axis(0)}])
        assert answer == {"domain": "toys", "catalog_revision": 1}
        with_it = await shop.ask(history=["new-1"])
        assert [each["kind"] for each in with_it["degraded"]] == ["untrained_model"]
