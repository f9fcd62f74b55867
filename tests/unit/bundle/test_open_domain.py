"""One domain of a bundle is opened beside a backbone that is loaded already, if it is that very backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken

from model.bundle.bundle import Bundle, open_bundle, open_domain
from model.bundle.layout import BACKBONE_CONFIG, BACKBONE_WEIGHTS, TOKENIZER
from model.bundle.manifest import write_manifest
from model.errors import BackboneMismatchError, BundleError, IntegrityError
from tests.tiny import tiny_bundle, tiny_tokenizer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("served"), num_items=20))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path, ("garments", "toys"), num_items=20)


def test_it_is_what_opening_the_whole_bundle_gives(served: Bundle, root: Path) -> None:
    opened = open_domain(root, "garments", served.foundation)
    whole = open_bundle(root)
    expected = whole.domains["garments"]
    assert opened.bundle_hash == whole.hash
    assert opened.files.spec == expected.spec
    assert opened.files.catalog.table.equals(expected.catalog.table)
    assert opened.files.adapter.keys() == expected.adapter.keys()
    assert all(torch.equal(opened.files.adapter[name], tensor) for name, tensor in expected.adapter.items())


def test_the_weights_of_the_backbone_are_not_read(served: Bundle, root: Path) -> None:
    (root / BACKBONE_WEIGHTS).unlink()
    assert open_domain(root, "toys", served.foundation).files.spec.name == "toys"


def test_another_tokenizer_is_refused(served: Bundle, root: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("▁gizmo")])
    tokenizer.save(str(root / TOKENIZER))
    write_manifest(root)
    with pytest.raises(BackboneMismatchError, match=r"backbone/tokenizer.json has the sha256"):
        open_domain(root, "toys", served.foundation)


def test_other_dimensions_of_the_same_weights_are_refused(served: Bundle, root: Path) -> None:
    config = root / BACKBONE_CONFIG
    config.write_text(config.read_text().replace('"layer_norm_epsilon": 1e-06', '"layer_norm_epsilon": 1e-05'))
    write_manifest(root)
    with pytest.raises(BackboneMismatchError, match="has other dimensions"):
        open_domain(root, "toys", served.foundation)


@pytest.mark.parametrize("name", ["books", "../toys", ""])
def test_a_domain_that_it_does_not_have_is_named(served: Bundle, root: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"has no domain .*; it has garments, toys"):
        open_domain(root, name, served.foundation)


def test_a_file_of_the_domain_that_was_changed_is_refused(served: Bundle, root: Path) -> None:
    path = root / "domains" / "toys" / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"adapter\.safetensors was modified"):
        open_domain(root, "toys", served.foundation)
    assert open_domain(root, "garments", served.foundation).files.spec.name == "garments"
