from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import T5Config

from model.bundle.documents import (
    read_backbone_config,
    read_domain_spec,
    write_backbone_config,
    write_domain_spec,
)
from model.bundle.layout import DomainSpec, ImageEncoder, PromptDefaults
from model.network.config import BackboneConfig
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT
from tests.unit.bundle.refusals import refused

SPEC = DomainSpec(
    "toys",
    TINY_LAYOUT,
    "ab" * 32,
    encoder=ImageEncoder("vitb32", TINY_LAYOUT.feature_dim),
    prompts=PromptDefaults("A-1", "B-8", 512),
    length_penalty=0.5,
    trained=False,
)


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def domain_json(tmp_path: Path) -> Path:
    write_domain_spec(tmp_path / "domain.json", SPEC)
    return tmp_path / "domain.json"


@pytest.fixture
def config_json(tmp_path: Path) -> Path:
    write_backbone_config(tmp_path / "config.json", TINY_BACKBONE)
    return tmp_path / "config.json"


@pytest.mark.parametrize("spec", [SPEC, DomainSpec("toys", replace(TINY_LAYOUT, visual_tokens=0), "")])
def test_a_domain_spec_is_read_as_it_was_written(tmp_path: Path, spec: DomainSpec) -> None:
    write_domain_spec(tmp_path / "domain.json", spec)
    assert read_domain_spec(tmp_path / "domain.json", "toys") == spec


@pytest.mark.parametrize(
    "config", [TINY_BACKBONE, replace(TINY_BACKBONE, feed_forward_proj="gated-gelu", tie_word_embeddings=False)]
)
def test_a_backbone_config_is_read_as_it_was_written(tmp_path: Path, config: BackboneConfig) -> None:
    write_backbone_config(tmp_path / "config.json", config)
    assert read_backbone_config(tmp_path / "config.json") == config


def test_hugging_face_reads_the_backbone_config(config_json: Path) -> None:
    theirs = T5Config.from_pretrained(config_json.parent)
    assert (theirs.d_model, theirs.d_kv, theirs.num_heads, theirs.num_decoder_layers, theirs.vocab_size) == (
        TINY_BACKBONE.d_model,
        TINY_BACKBONE.d_kv,
        TINY_BACKBONE.num_heads,
        TINY_BACKBONE.num_decoder_layers,
        TINY_BACKBONE.vocab_size,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("layout"), "domains/toys/domain.json lacks layout; it must have exactly backbone_sha256"),
        (lambda d: d.update(speed=1), "domains/toys/domain.json has unknown speed"),
        (lambda d: d.update(name="games"), "the domain's name is 'games', but its folder is 'toys'"),
        (lambda d: d.update(trained=1), "domains/toys/domain.json: trained is 1; it must be of type bool"),
        (lambda d: d["layout"].update(bottleneck=True), "layout: bottleneck is true; it must be of type int"),
        (lambda d: d["layout"].update(bottleneck=-4), "layout.bottleneck is -4; it must not be negative"),
        (lambda d: d["layout"].pop("category_rows"), "domains/toys/domain.json: layout lacks category_rows"),
        (lambda d: d.update(encoder=[]), "domains/toys/domain.json: encoder is []; it must be an object"),
        (lambda d: d["encoder"].update(dim=9), "encoder.dim is 9, but layout.feature_dim is 8"),
        (lambda d: d["prompts"].update(max_tokens=0), "prompts.max_tokens is 0; it must be at least 1"),
        (lambda d: d.update(length_penalty=float("nan")), "domain.json is not readable JSON"),
    ],
)
def test_a_faulty_domain_spec_is_refused(
    domain_json: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with refused("invalid_bundle", message):
        read_domain_spec(changed(domain_json, change), "toys")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("d_kv"), "backbone/config.json lacks d_kv"),
        (lambda d: d.update(model_type="bert"), 'backbone/config.json: model_type must be "t5"'),
        (lambda d: d.update(num_heads=0), "backbone/config.json: num_heads is 0; it must be at least 1"),
        (lambda d: d.update(layer_norm_epsilon=0), "layer_norm_epsilon is 0.0; it must be greater than 0"),
        (
            lambda d: d.update(feed_forward_proj="silu"),
            'feed_forward_proj is "silu"; it must be one of relu, gated-gelu',
        ),
        (lambda d: d.update(d_model="64"), 'backbone/config.json: d_model is "64"; it must be of type int'),
    ],
)
def test_a_faulty_backbone_config_is_refused(
    config_json: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with refused("invalid_bundle", message):
        read_backbone_config(changed(config_json, change))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "domain.json is not readable JSON"),
        (b"\xff\xfe\x00", "domain.json is not readable JSON"),
        (b"[1]", "domain.json is a JSON list; it must be an object"),
        (b"[" * 100_000, "domain.json is not readable JSON"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "domain.json").write_bytes(content)
    with refused("invalid_bundle", message):
        read_domain_spec(tmp_path / "domain.json", "toys")
