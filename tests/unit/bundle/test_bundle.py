from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from model.bundle.bundle import open_bundle
from model.bundle.manifest import write_manifest
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, random_tensors, tiny_bundle
from tests.unit.bundle.refusals import refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path)


def with_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def with_catalog(root: Path, **columns: list[object]) -> None:
    path = root / "domains/toys/catalog.parquet"
    table = pq.ParquetFile(path).read()
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, path)
    write_manifest(root)


def test_an_opened_bundle_holds_what_was_written(tmp_path: Path) -> None:
    plain = replace(TINY_LAYOUT, visual_tokens=0, feature_dim=0, one_adapter_for_all_tasks=False)
    root = tiny_bundle(tmp_path, ("toys", "plain"), layouts={"plain": plain}, num_items=30)
    bundle = open_bundle(root)
    assert bundle.backbone.config == TINY_BACKBONE
    assert not bundle.backbone.has_layer_norms
    assert set(bundle.domains) == {"toys", "plain"}
    toys, text_only = bundle.domains["toys"], bundle.domains["plain"]
    assert toys.spec.backbone_sha256 == bundle.backbone.sha256
    assert toys.features_path == root / "domains/toys/features.safetensors"
    assert text_only.features_path is None
    assert text_only.spec.layout == plain
    assert toys.users is not None
    assert len(toys.users) == 9
    assert len(toys.catalog) == 30
    for weights, shapes, seed in (
        (bundle.backbone.weights, expected_shapes(TINY_BACKBONE), 0),
        (toys.adapter, expected_domain_shapes(TINY_BACKBONE, TINY_LAYOUT), 1),
        (text_only.adapter, expected_domain_shapes(TINY_BACKBONE, plain), 2),
    ):
        expected = random_tensors(shapes, seed)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_identifiers_are_the_tokens_of_the_index_texts(root: Path) -> None:
    bundle = open_bundle(root)
    domain = bundle.domains["toys"]
    rows = [domain.identifiers.row(row).tolist() for row in range(len(domain.catalog))]
    assert rows == [bundle.tokenizer.words(index) for index in domain.catalog.indices]


def test_a_domain_of_another_backbone_is_refused(root: Path) -> None:
    path = root / "domains/toys/domain.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "backbone_sha256": "0" * 64}))
    write_manifest(root)
    with refused(
        "backbone_mismatch", "domains/toys/domain.json: the domain was tuned on the backbone with sha256 0000"
    ):
        open_bundle(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.final_layer_norm.weight"), "lacks encoder.final_layer_norm.weight"),
        (lambda t: t.update(extra=torch.zeros(2)), "has unknown extra; check that its configuration"),
        (
            lambda t: t.update({"encoder.category_embeddings.weight": torch.zeros(15, 16)}),
            "encoder.category_embeddings.weight has shape (15, 16), but by the configuration it is (16, 16)",
        ),
        (
            lambda t: t.update({"encoder.final_layer_norm.weight": torch.zeros(16, dtype=torch.int64)}),
            "encoder.final_layer_norm.weight has type torch.int64; weights must be floating-point",
        ),
    ],
)
def test_tensors_that_the_layout_does_not_describe_are_refused(
    root: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    with_tensors(root / "domains/toys/adapter.safetensors", change)
    write_manifest(root)
    with refused("invalid_bundle", message):
        open_bundle(root)


def test_a_backbone_with_some_of_its_layer_norms_is_refused(root: Path) -> None:
    name = "encoder.final_layer_norm.weight"
    with_tensors(root / "backbone/model.safetensors", lambda t: t.update({name: torch.ones(16)}))
    write_manifest(root)
    with refused("invalid_bundle", "backbone/model.safetensors lacks decoder.block.0.layer.0.layer_norm.weight"):
        open_bundle(root)


def test_a_truncated_safetensors_file_is_refused_even_if_listed_so(root: Path) -> None:
    path = root / "domains/toys/adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    write_manifest(root)
    with refused("invalid_bundle", "adapter.safetensors is not a readable safetensors file"):
        open_bundle(root)


def with_tokenizer(root: Path, change: Callable[[Tokenizer], object]) -> None:
    path = str(root / "backbone/tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    change(tokenizer)
    tokenizer.save(path)
    write_manifest(root)


def test_a_tokenizer_larger_than_the_embedding_is_refused(root: Path) -> None:
    with_tokenizer(root, lambda tokenizer: tokenizer.add_special_tokens([AddedToken("<one_more>")]))
    rows = TINY_BACKBONE.vocab_size
    message = f"backbone/tokenizer.json has {rows + 1} tokens, but the embedding has {rows} rows"
    with refused("invalid_bundle", message):
        open_bundle(root)


@pytest.mark.parametrize("token", ["<extra_id_0>", "</s>", "<pad>"])
def test_a_tokenizer_without_a_token_of_t5_is_refused(root: Path, token: str) -> None:
    path = root / "backbone/tokenizer.json"
    path.write_text(path.read_text().replace(json.dumps(token), json.dumps("<renamed>")))
    write_manifest(root)
    with refused("invalid_bundle", "token"):
        open_bundle(root)


def test_a_tokenizer_with_its_special_tokens_elsewhere_is_refused(root: Path) -> None:
    path = root / "backbone/tokenizer.json"
    swapped = path.read_text().replace("<pad>", "<swap>").replace("<unk>", "<pad>").replace("<swap>", "<unk>")
    path.write_text(swapped)
    write_manifest(root)
    with refused("invalid_bundle", "backbone/tokenizer.json: <pad> has id 2, in T5's tokenizer 0"):
        open_bundle(root)


def test_a_file_that_is_no_tokenizer_is_refused(root: Path) -> None:
    (root / "backbone/tokenizer.json").write_text("{}")
    write_manifest(root)
    with refused("invalid_bundle", "tokenizer.json is not a readable tokenizer file"):
        open_bundle(root)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("12", "items 'item-12' and 'item-7' have the same tokens as index ('12' and '12')"),
        (" 12 ", "have the same tokens as index"),
        ("ünknown", "the index 'ünknown' of item 'item-7' has the token <unk>"),
        ("7 </s>", "the index '7 </s>' of item 'item-7' has the token </s>"),
        ("<pad>", "the index '<pad>' of item 'item-7' has the token <pad>"),
        ("7 <extra_id_0>", "has the token <extra_id_0>, which the model cannot generate"),
    ],
)
def test_an_identifier_that_cannot_be_generated_or_told_apart_is_refused(root: Path, index: str, message: str) -> None:
    indices = [str(number) for number in range(1, 121)]
    # Item 12 comes first, so that it is the one that item 7 repeats.
    indices[6], item_ids = index, [f"item-{number}" for number in range(1, 121)]
    order = [11, *range(11), *range(12, 120)]
    with_catalog(root, index=[indices[row] for row in order], item_id=[item_ids[row] for row in order])
    (root / "domains/toys/features.safetensors").unlink()
    write_manifest(root)
    with refused("invalid_catalog", f"domains/toys/catalog.parquet: {message}" if "item" in message[:6] else message):
        open_bundle(root)


def test_an_empty_index_is_refused(root: Path) -> None:
    with_catalog(root, index=["  ", *(str(number) for number in range(2, 121))])
    with refused("invalid_catalog", "row 1 has no index; give each row one"):
        open_bundle(root)


def test_an_item_that_stands_twice_is_refused(root: Path) -> None:
    with_catalog(root, item_id=["item-2", *(f"item-{number}" for number in range(2, 121))])
    with refused("invalid_catalog", "domains/toys/catalog.parquet: item_id 'item-2' occurs in 2 rows"):
        open_bundle(root)


def test_a_file_that_is_no_parquet_is_refused(root: Path) -> None:
    (root / "domains/toys/catalog.parquet").write_bytes(b"PAR1 and no more")
    write_manifest(root)
    with refused("invalid_catalog", "catalog.parquet is not a readable Parquet file"):
        open_bundle(root)


def test_features_of_another_width_are_refused(root: Path) -> None:
    path = root / "domains/toys/features.safetensors"
    with_tensors(path, lambda t: t.update(features=t["features"][:, :4].contiguous()))
    write_manifest(root)
    with refused("invalid_bundle", "domains/toys/features.safetensors: features is F32 [110, 4] for 110 item ids"):
        open_bundle(root)


def test_features_of_unknown_items_are_refused(root: Path) -> None:
    path = root / "domains/toys/features.safetensors"
    with_tensors(path, lambda t: t["id_bytes"].__setitem__(0, ord("I")))
    write_manifest(root)
    with refused("invalid_bundle", "domains/toys/features.safetensors: item 'Item-1' is not in the catalog"):
        open_bundle(root)


@pytest.mark.parametrize("offsets", [[0, 5], [1, 2, 3], [], [0, 900]])
def test_features_whose_ids_do_not_add_up_are_refused(root: Path, offsets: list[int]) -> None:
    path = root / "domains/toys/features.safetensors"
    with_tensors(path, lambda t: t.update(id_offsets=torch.tensor(offsets, dtype=torch.int64)))
    write_manifest(root)
    with refused("invalid_bundle", "domains/toys/features.safetensors: id_offsets must rise from 0 to"):
        open_bundle(root)


def test_features_whose_ids_are_no_text_are_refused(root: Path) -> None:
    path = root / "domains/toys/features.safetensors"
    with_tensors(path, lambda t: t["id_bytes"].fill_(0xFF))
    write_manifest(root)
    with refused("invalid_bundle", "the item ids are not UTF-8"):
        open_bundle(root)


def test_weights_are_not_aliased_between_openings(root: Path) -> None:
    first, second = open_bundle(root), open_bundle(root)
    first.backbone.weights["shared.weight"].zero_()
    assert np.abs(second.backbone.weights["shared.weight"].numpy()).max() > 0
    assert open_bundle(root).hash == first.hash


def test_prompts_longer_than_the_whole_word_table_are_refused(root: Path) -> None:
    path = root / "domains/toys/domain.json"
    spec = json.loads(path.read_text())
    spec["prompts"]["max_tokens"] = 1025
    path.write_text(json.dumps(spec))
    write_manifest(root)
    with refused(
        "invalid_bundle",
        "domains/toys/domain.json: prompts.max_tokens is 1025, but the table of whole-word embeddings has 1024 rows, "
        "one per word; set max_tokens to at most 1024",
    ):
        open_bundle(root)
