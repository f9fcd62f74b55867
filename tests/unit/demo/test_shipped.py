"""What demo/README.md says of the bundle that is shipped."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPModel

from demo.clip import TinyClip, untrained_clip
from demo.datasets import Shop
from demo.designs import ASSORTMENTS, Assortment
from demo.make import SEED, Places, completed_text_bundle
from demo.measure import Figures, measure, table
from demo.pictures import embed_catalog
from feature_cache.encoding.opening import TorchSource
from model.bundle.bundle import open_bundle
from model.bundle.features import load_features
from model.evaluation.metrics import Estimate

ROOT = Path(__file__).parents[3]
PLACES = Places(ROOT / "demo" / "bundle")
LARGEST_MIB = 10
"""What is shipped, all together."""

each_domain = pytest.mark.parametrize("domain", [assortment.domain for assortment in ASSORTMENTS])


@pytest.fixture(scope="module")
def figures() -> dict[tuple[str, str], Figures]:
    return {(one.domain, one.name): one for one in measure(PLACES)}


@each_domain
@pytest.mark.parametrize("other", ["random", "popularity", "co-occurrence"])
def test_held_out_customers_are_served_better_than_by_baselines(
    figures: dict[tuple[str, str], Figures], domain: str, other: str
) -> None:
    model, baseline = figures[domain, "prompts with pictures"], figures[domain, other]
    assert model.hit_rate.low > baseline.hit_rate.high
    assert model.ndcg.low > baseline.ndcg.high


@each_domain
@pytest.mark.parametrize("other", ["prompts without pictures", "prompts with pictures, all missing"])
def test_pictures_make_recommendations_better(figures: dict[tuple[str, str], Figures], domain: str, other: str) -> None:
    model, blind = figures[domain, "prompts with pictures"], figures[domain, other]
    assert model.hit_rate.low > blind.hit_rate.high
    assert model.ndcg.low > blind.ndcg.high


@each_domain
def test_explanations_name_what_only_the_picture_shows(figures: dict[tuple[str, str], Figures], domain: str) -> None:
    model, blind = figures[domain, "prompts with pictures"], figures[domain, "prompts without pictures"]
    for seen, unseen in ((model.share_true, blind.share_true), (model.share_true_new, blind.share_true_new)):
        assert seen is not None
        assert unseen is not None
        assert seen.value > 0.7
        assert seen.low > unseen.high


@each_domain
def test_the_readme_s_figures_are_those_of_the_bundle(figures: dict[tuple[str, str], Figures], domain: str) -> None:
    """Up to what sums of floats differ by between processors: the intervals overlap."""
    for (of, name), measured in figures.items():
        if of != domain:
            continue
        cells = _readme_row(domain, name)
        for shown, estimate in zip(cells, (measured.hit_rate, measured.ndcg), strict=False):
            _, low, high = (float(number) for number in re.findall(r"\d\.\d+", shown))
            assert low <= estimate.high
            assert estimate.low <= high


@pytest.mark.parametrize("assortment", ASSORTMENTS, ids=lambda assortment: assortment.domain)
def test_the_shipped_embeddings_are_those_of_the_shipped_pictures(assortment: Assortment) -> None:
    blank = untrained_clip([kind.name for each in ASSORTMENTS for kind in each.kinds], SEED)
    clip = TinyClip(CLIPModel.from_pretrained(PLACES.clip).eval(), blank.tokenizer, blank.processor)
    embedded = embed_catalog(Shop.opened(assortment, SEED), PLACES.pictures, clip)
    path = open_bundle(PLACES.bundle).domains[assortment.domain].features_path
    assert path is not None
    shipped = load_features(path)
    assert shipped.item_ids == embedded.item_ids
    np.testing.assert_allclose(shipped.features, embedded.features, atol=0.05)


def test_the_encode_command_s_encoder_gives_the_shipped_embeddings() -> None:
    encoder = TorchSource(PLACES.clip, "demo-clip").load()
    path = open_bundle(PLACES.bundle).domains["toys"].features_path
    assert path is not None
    shipped = load_features(path)
    pixels = []
    for item in shipped.item_ids[:8]:
        with Image.open(PLACES.pictures / "toys" / f"{item}.webp", formats=["WEBP"]) as picture:
            pixels.append(encoder.preprocessing.pixels(picture.convert("RGB")))
    np.testing.assert_allclose(encoder.tower.embed(np.stack(pixels)), shipped.features[:8], atol=0.05)


def test_the_two_shops_share_a_backbone_that_tuning_left_alone() -> None:
    bundle = open_bundle(PLACES.bundle)
    with completed_text_bundle(PLACES) as completed:
        text = open_bundle(completed)
    assert sorted(bundle.domains) == sorted(text.domains) == ["garments", "toys"]
    assert bundle.backbone.sha256 == text.backbone.sha256
    assert all(domain.spec.trained for domain in bundle.domains.values())


def test_the_shipped_catalogs_are_those_that_the_code_draws() -> None:
    bundle = open_bundle(PLACES.bundle)
    for assortment in ASSORTMENTS:
        shop = Shop.opened(assortment, SEED)
        catalog = bundle.domains[assortment.domain].catalog
        assert catalog.item_ids == tuple(item.item_id for item in shop.items)
        assert catalog.titles == tuple(item.title for item in shop.items)
        for image in catalog.images:
            assert image is not None
            with Image.open(PLACES.pictures / image, formats=["WEBP"]) as picture:
                assert picture.size == (128, 128)


def test_the_demonstration_stays_small() -> None:
    shipped = (PLACES.bundle, PLACES.text_bundle, PLACES.clip, PLACES.pictures, PLACES.held_out)
    size = sum(path.stat().st_size for folder in shipped for path in folder.rglob("*") if path.is_file())
    assert size + PLACES.requests.stat().st_size < LARGEST_MIB * 2**20


def test_the_table_has_a_row_for_each_way_of_recommending() -> None:
    sure = Estimate(value=0.5, low=0.25, high=0.75)
    rows = table(
        [Figures("toys", "random", sure, sure), Figures("toys", "model", sure, sure, sure, sure, sure)]
    ).splitlines()
    assert rows[2] == "| toys | random | 0.500 (0.250 to 0.750) | 0.500 (0.250 to 0.750) |  |  |  |"
    assert rows[3].count("0.500 (0.250 to 0.750)") == 5


def _readme_row(domain: str, name: str) -> list[str]:
    readme = (ROOT / "demo" / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {domain} \| {name} \|(.*)\|$", readme, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]
