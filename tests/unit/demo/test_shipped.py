"""What demo/README.md says of the bundle that is shipped."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPModel

from demo.clip import TinyClip, untrained_clip
from demo.datasets import Shop
from demo.designs import ASSORTMENTS, LOOKS, TOYS, Assortment, Design
from demo.make import SEED, Places
from demo.measure import Explained, Figures, measure, table
from demo.pictures import embed_catalog
from demo.reviews import give_opinion, mood_in, mood_of
from feature_cache.encoding.opening import TorchSource
from model.bundle.bundle import open_bundle
from model.bundle.features import load_features
from model.datasets.dataset import Dataset
from model.evaluation.evaluation import evaluate
from model.evaluation.metrics import Estimate
from model.evaluation.options import EvaluationOptions
from model.planning.runtime import load_runtime
from tests.unit.demo.catalogs import without_counts

ROOT = Path(__file__).parents[3]
PLACES = Places(ROOT / "demo" / "bundle")
LARGEST_MB = {"the bundle": 10, "all together": 16}
ENOUGH = 0.30
"""Least HR@5, of all items and of new ones."""

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
def test_a_model_that_was_trained_without_pictures_knows_them_by_the_codes(
    figures: dict[tuple[str, str], Figures], domain: str
) -> None:
    blind, counted = figures[domain, "prompts without pictures"], figures[domain, "co-occurrence"]
    assert blind.hit_rate.low > counted.hit_rate.high
    assert blind.new.low > counted.new.high


@each_domain
def test_new_items_are_recommended_about_as_well_as_those_that_were_trained_on(
    figures: dict[tuple[str, str], Figures], domain: str
) -> None:
    model, counted = figures[domain, "prompts with pictures"], figures[domain, "co-occurrence"]
    assert model.hit_rate.value > ENOUGH
    assert model.new.value > ENOUGH
    assert model.new.low > counted.new.high


@each_domain
def test_lists_show_nearly_everything_and_are_as_popular_as_what_is_bought(domain: str) -> None:
    options = EvaluationOptions(
        templates=("A-3",), num_users=150, exclude_history=True, baselines=("random", "popularity")
    )
    report = evaluate(
        load_runtime(PLACES.bundle, num_threads=1), domain, Dataset.read(PLACES.held_out / domain), options
    )
    model, lot, popular = (result.exposure for result in report.results)
    assert model is not None
    assert lot is not None
    assert popular is not None
    assert model.num_shown > 0.9 * model.num_items
    assert popular.num_shown < 0.1 * popular.num_items
    assert abs(model.metrics["popularity-difference@10"].value) < 1 < popular.metrics["popularity-difference@10"].low
    assert lot.metrics["gini@10"].high < model.metrics["gini@10"].low < popular.metrics["gini@10"].low
    assert model.metrics["diversity@10"].high < lot.metrics["diversity@10"].low


@each_domain
def test_explanations_name_what_only_the_picture_shows(figures: dict[tuple[str, str], Figures], domain: str) -> None:
    model, blind = (
        figures[domain, "prompts with pictures"].explained,
        figures[domain, "prompts without pictures"].explained,
    )
    assert model is not None
    assert blind is not None
    for seen, unseen in ((model.true, blind.true), (model.true_new, blind.true_new), (model.asked, blind.asked)):
        assert seen.value > 0.7
        assert seen.low > unseen.high
    assert model.in_tone.value > 0.7


@each_domain
def test_the_readme_s_figures_are_those_of_the_bundle(figures: dict[tuple[str, str], Figures], domain: str) -> None:
    """Up to what sums of floats differ by between processors: the intervals overlap."""
    for (of, name), measured in figures.items():
        if of != domain:
            continue
        rows = [[measured.hit_rate, measured.new, measured.regular, measured.ndcg]]
        if measured.explained is not None:
            texts = measured.explained
            rows.append([texts.true, texts.true_new, texts.asked, texts.in_tone])
        shown = _readme_rows(domain, name)
        assert len(shown) == len(rows)
        for cells, estimates in zip(shown, rows, strict=True):
            for cell, estimate in zip(cells, estimates, strict=True):
                _, low, high = (float(number) for number in re.findall(r"\d\.\d+", cell))
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


def test_the_two_shops_share_a_backbone_and_each_has_its_codes() -> None:
    bundle, text = open_bundle(PLACES.bundle), open_bundle(PLACES.text_bundle)
    assert sorted(bundle.domains) == sorted(text.domains) == ["garments", "toys"]
    assert bundle.backbone.config == text.backbone.config
    for name, domain in bundle.domains.items():
        assert domain.spec.trained
        assert domain.codebook is not None
        assert without_counts(domain.catalog).equals(without_counts(text.domains[name].catalog))


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
    beside = (PLACES.text_bundle, PLACES.clip, PLACES.pictures, PLACES.held_out)
    assert _size_of(PLACES.bundle) < LARGEST_MB["the bundle"] * 10**6
    together = sum(map(_size_of, (PLACES.bundle, *beside))) + PLACES.requests.stat().st_size
    assert together < LARGEST_MB["all together"] * 10**6


def test_the_tables_have_a_row_for_each_way_of_recommending() -> None:
    sure = Estimate(value=0.5, low=0.25, high=0.75)
    baseline = Figures("toys", "random", sure, sure, sure, sure)
    model = Figures("toys", "model", sure, sure, sure, sure, Explained(sure, sure, sure, sure))
    recommended, explained = table([baseline, model]).split("\n\n")
    cells = " | ".join(["0.500 (0.250 to 0.750)"] * 4)
    assert recommended.splitlines()[2:] == [f"| toys | random | {cells} |", f"| toys | model | {cells} |"]
    assert explained.splitlines()[2:] == [f"| toys | model | {cells} |"]


def test_every_sentence_of_a_review_has_the_tone_of_its_rating() -> None:
    chance = random.Random(1)
    for stars in (2, 3, 4, 5) * 50:
        opinion = give_opinion(Design(TOYS.kinds[0], LOOKS[3]), stars, chance)
        assert mood_in(opinion.explanation) == mood_of(stars)
        assert mood_in(opinion.explanation.replace(" ,", ",")) == mood_of(stars)
    assert mood_in("the red is") is None


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _readme_rows(domain: str, name: str) -> list[list[str]]:
    """Cells of the rows of both tables that `demo.measure` writes."""
    readme = (ROOT / "demo" / "README.md").read_text(encoding="utf-8")
    figures = readme.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    rows = re.findall(rf"^\| {domain} \| {name} \|(.*)\|$", figures, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]
