from __future__ import annotations

import ctypes
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from model.bundle import folders
from model.bundle.bundle import Bundle, open_bundle
from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.writer import BundleWriter
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, tiny_bundle, tiny_catalog, tiny_features, tiny_tokenizer
from tests.unit.bundle.refusals import refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path)


def spec(name: str) -> DomainSpec:
    return DomainSpec(name, TINY_LAYOUT, "")


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def add_games(root: Path, bundle: Bundle) -> str:
    with BundleWriter(root) as writer:
        writer.add_domain(spec("games"), bundle.domains["toys"].adapter, tiny_catalog(30))
        return writer.seal()


def test_a_domain_is_added_beside_those_there(root: Path) -> None:
    before = open_bundle(root)
    digest = add_games(root, before)
    after = open_bundle(root)
    assert after.hash == digest != before.hash
    assert set(after.domains) == {"toys", "games"}
    assert len(after.domains["games"].catalog) == 30
    assert after.domains["toys"].features_path is not None
    assert names_in(root.parent) == ["bundle"]


def test_a_domain_takes_the_place_of_the_one_with_its_name(root: Path) -> None:
    adapter = open_bundle(root).domains["toys"].adapter
    with BundleWriter(root) as writer:
        assert writer.domains == {"toys"}
        writer.add_domain(spec("toys"), adapter, tiny_catalog(7))
        writer.seal()
    toys = open_bundle(root).domains["toys"]
    assert len(toys.catalog) == 7
    assert toys.features_path is None
    assert toys.users is None


def test_a_bundle_that_is_not_sealed_leaves_the_old_one_and_nothing_else(root: Path) -> None:
    before = open_bundle(root)
    with BundleWriter(root) as writer:
        writer.add_domain(spec("games"), before.domains["toys"].adapter, tiny_catalog(30))
    with pytest.raises(RuntimeError), BundleWriter(root):
        raise RuntimeError
    assert open_bundle(root).hash == before.hash
    assert names_in(root.parent) == ["bundle"]


def test_a_crash_before_the_exchange_leaves_the_old_bundle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_bundle(root)

    def crash(*_: Path) -> None:
        raise OSError("power failed")

    monkeypatch.setattr(folders, "_exchange", crash)
    with pytest.raises(OSError, match="power failed"):
        add_games(root, before)
    assert open_bundle(root).hash == before.hash
    assert names_in(root.parent) == ["bundle"]


def test_folders_are_replaced_where_the_system_cannot_exchange_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    add_games(root, open_bundle(root))
    assert set(open_bundle(root).domains) == {"toys", "games"}
    assert names_in(root.parent) == ["bundle"]


def test_files_are_copied_where_they_cannot_be_linked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    add_games(root, open_bundle(root))
    assert set(open_bundle(root).domains) == {"toys", "games"}


def test_a_bundle_being_served_is_not_changed_by_its_successor(root: Path) -> None:
    served = open_bundle(root)
    weights = {name: tensor.clone() for name, tensor in served.backbone.weights.items()}
    add_games(root, served)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in served.backbone.weights.items())


def test_a_bundle_named_by_a_link_is_replaced_behind_the_link(root: Path) -> None:
    link = root.parent / "current"
    link.symlink_to(root)
    add_games(link, open_bundle(link))
    assert link.is_symlink()
    assert set(open_bundle(root).domains) == {"toys", "games"}


def test_everyone_may_read_a_bundle(root: Path) -> None:
    paths = [root, *root.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o755, 0o644}


def test_a_tampered_bundle_is_not_added_to(root: Path) -> None:
    (root / "domains/toys/users.parquet").write_bytes(b"")
    with refused("bundle_integrity", "domains/toys/users.parquet has 0 bytes"):
        BundleWriter(root)
    assert names_in(root.parent) == ["bundle"]


def test_a_folder_of_other_things_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with refused("bundle_integrity", "has no manifest.json, so it is not a bundle"):
        BundleWriter(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_of_two_writers_at_once_the_second_has_to_do_it_again(root: Path) -> None:
    toys = open_bundle(root).domains["toys"]
    with BundleWriter(root) as late:
        late.add_domain(spec("late"), toys.adapter, tiny_catalog(3))
        add_games(root, open_bundle(root))
        with refused("invalid_bundle", "bundle was changed by another process meanwhile; repeat the command"):
            late.seal()
    assert open_bundle(root).domains.keys() == {"toys", "games"}


def test_an_empty_folder_becomes_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    assert open_bundle(tiny_bundle(tmp_path)).domains.keys() == {"toys"}


def test_the_same_backbone_is_shared_and_another_refused(root: Path) -> None:
    backbone = open_bundle(root).backbone
    with BundleWriter(root) as writer:
        shared = writer.share_backbone(backbone.config, backbone.weights, None)
        assert shared.sha256 == backbone.sha256
        writer.share_backbone(backbone.config, backbone.weights, tiny_tokenizer())

        changed = {name: tensor.clone() for name, tensor in backbone.weights.items()}
        changed["decoder.block.1.layer.2.DenseReluDense.wo.weight"][0, 0] += 0.25
        changed["decoder.block.0.layer.1.EncDecAttention.o.weight"][1, 2] -= 0.5
        message = (
            "2 frozen parameters differ by up to 0.5, the first is decoder.block.0.layer.1.EncDecAttention.o.weight;"
        )
        with refused("backbone_mismatch", message):
            writer.share_backbone(backbone.config, changed, None)

        other = replace(TINY_BACKBONE, d_ff=99)
        with refused("backbone_mismatch", "the bundle's backbone has d_ff 24, the checkpoint has 99"):
            writer.share_backbone(other, backbone.weights, None)

        tokenizer = tiny_tokenizer()
        tokenizer.add_special_tokens([AddedToken("<more>")])
        with refused("backbone_mismatch", "the tokenizer's vocabulary differs from that of the bundle's"):
            writer.share_backbone(backbone.config, backbone.weights, tokenizer)


def test_dropout_is_no_difference_between_backbones(root: Path) -> None:
    backbone = open_bundle(root).backbone
    with BundleWriter(root) as writer:
        writer.share_backbone(replace(backbone.config, dropout_rate=0.3), backbone.weights, None)


def test_a_domain_before_the_backbone_is_refused(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "new") as writer, refused("invalid_bundle", "needs its backbone before"):
        writer.add_domain(spec("toys"), {}, tiny_catalog(3))
    assert names_in(tmp_path) == []


def test_a_backbone_without_tokenizer_is_refused(root: Path, tmp_path: Path) -> None:
    backbone = open_bundle(root).backbone
    with BundleWriter(tmp_path / "new") as writer, refused("invalid_bundle", "a new bundle needs a tokenizer"):
        writer.share_backbone(backbone.config, backbone.weights, None)


def test_a_domain_that_breaks_a_rule_is_not_written(root: Path) -> None:
    toys = open_bundle(root).domains["toys"]
    with BundleWriter(root) as writer:
        with refused("invalid_bundle", "'../up' cannot name a domain"):
            writer.add_domain(spec("../up"), toys.adapter, toys.catalog)
        with refused("invalid_bundle", "domains/games/adapter.safetensors lacks"):
            writer.add_domain(spec("games"), {}, toys.catalog)
        with refused("invalid_catalog", "domains/games/catalog.parquet: items 'a' and 'b' have the same tokens"):
            same = Catalog.from_rows([{"item_id": "a", "index": "7"}, {"item_id": "b", "index": " 7"}])
            writer.add_domain(spec("games"), toys.adapter, same)
        with refused("invalid_bundle", "the features are 5 wide, but the model reads 8"):
            writer.add_domain(spec("games"), toys.adapter, toys.catalog, features=tiny_features(toys.catalog, 5))
        assert writer.domains == {"toys"}


def test_features_of_another_encoder_are_refused(root: Path) -> None:
    toys = open_bundle(root).domains["toys"]
    tuned_with_clip = replace(spec("games"), encoder=ImageEncoder("vitb32", 8))
    features = ItemFeatures(("item-3",), np.ones((1, 8), dtype=np.float32), encoder="rn50")
    with BundleWriter(root) as writer, refused("invalid_bundle", "made by rn50, but the model was tuned with vitb32"):
        writer.add_domain(tuned_with_clip, toys.adapter, toys.catalog, features=features)


def test_features_are_stored_in_the_order_of_the_catalog(root: Path) -> None:
    toys = open_bundle(root).domains["toys"]
    features = ItemFeatures(("item-3", "item-1"), np.arange(16, dtype=np.float32).reshape(2, 8))
    with BundleWriter(root) as writer:
        writer.add_domain(spec("toys"), toys.adapter, tiny_catalog(4), features=features)
        writer.seal()
    content = (root / "domains/toys/features.safetensors").read_bytes()
    assert b"item-1item-3" in content
