from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

from model.bundle.bundle import open_bundle
from model.bundle.importers.domain import CheckpointSource, DomainSource
from model.bundle.importers.t5 import import_t5
from model.bundle.importers.vip5 import import_vip5
from model.network.config import FeedForward
from tests.tiny import TINY_BACKBONE, tiny_checkpoint, tiny_tokenizer
from tests.unit.bundle.refusals import refused


def silent(what: str, done: int, total: int | None) -> None:
    """No progress shown."""


def t5(feed_forward: FeedForward = "relu", *, tied: bool = True) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=TINY_BACKBONE.vocab_size,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_heads=3,
        num_layers=2,
        num_decoder_layers=2,
        feed_forward_proj=feed_forward,
        tie_word_embeddings=tied,  # type: ignore[call-arg]  # read all the same, though not declared
    )
    return T5ForConditionalGeneration(config)


def saved(folder: Path, model: T5ForConditionalGeneration, max_shard_size: str = "1GB") -> Path:
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_a_t5_becomes_a_backbone_with_its_layer_norms(tmp_path: Path, feed_forward: FeedForward) -> None:
    model = t5(feed_forward)
    digest = import_t5(saved(tmp_path / "t5", model), tmp_path / "bundle", silent)
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.hash == digest
    assert bundle.domains == {}
    assert bundle.backbone.has_layer_norms
    assert bundle.backbone.config == replace(TINY_BACKBONE, feed_forward_proj=feed_forward)
    theirs = dict(model.named_parameters())
    assert bundle.backbone.weights.keys() == theirs.keys()
    assert all(torch.equal(bundle.backbone.weights[name], theirs[name]) for name in theirs)


def test_a_sharded_t5_is_the_same(tmp_path: Path) -> None:
    whole = import_t5(saved(tmp_path / "whole", t5()), tmp_path / "a", silent)
    sharded = saved(tmp_path / "sharded", t5(), max_shard_size="20KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert import_t5(sharded, tmp_path / "b", silent) == whole


def test_a_head_of_its_own_is_kept(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t5", t5("gated-gelu", tied=False))
    weights = load_file(folder / "model.safetensors")
    head = torch.randn(TINY_BACKBONE.vocab_size, 16)
    save_file({**weights, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    import_t5(folder, tmp_path / "bundle", silent)
    backbone = open_bundle(tmp_path / "bundle").backbone
    assert not backbone.config.tie_word_embeddings
    assert torch.equal(backbone.weights["lm_head.weight"], head)


def test_a_shared_head_that_is_not_scaled_becomes_one_of_its_own(tmp_path: Path) -> None:
    model = t5("gated-gelu", tied=False)
    # The library ties what is not tied, and remembers not to scale.
    assert not model.config.scale_decoder_outputs
    import_t5(saved(tmp_path / "t5", model), tmp_path / "bundle", silent)
    backbone = open_bundle(tmp_path / "bundle").backbone
    assert not backbone.config.tie_word_embeddings
    assert torch.equal(backbone.weights["lm_head.weight"], backbone.weights["shared.weight"])


def test_the_configuration_of_the_original_t5_v1_1_means_a_head_of_its_own(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t5", t5())
    config = json.loads((folder / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    import_t5(folder, tmp_path / "bundle", silent)
    assert not open_bundle(tmp_path / "bundle").backbone.config.tie_word_embeddings


def test_a_scaled_head_that_is_not_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t5", t5())
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["shared.weight"] + 1
    save_file(weights, folder / "model.safetensors")
    with refused("invalid_bundle", "t5: lm_head.weight differs from shared.weight, but the configuration ties them"):
        import_t5(folder, tmp_path / "bundle", silent)


def test_a_tuned_domain_joins_the_t5_that_it_was_tuned_on(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t5", t5())
    checkpoint = tiny_checkpoint()
    weights = load_file(folder / "model.safetensors")
    checkpoint.state_dict.update({name: tensor for name, tensor in weights.items() if "norm" not in name})
    for alias in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        checkpoint.state_dict[alias] = weights["shared.weight"]
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "index": "1"}')

    import_t5(folder, tmp_path / "bundle", silent)
    source = CheckpointSource(*checkpoint.save(tmp_path), None)
    import_vip5(source, DomainSource("toys", tmp_path / "items.jsonl"), tmp_path / "bundle", silent)
    bundle = open_bundle(tmp_path / "bundle")
    norm = "encoder.final_layer_norm.weight"
    assert torch.equal(bundle.backbone.weights[norm], weights[norm])
    assert torch.equal(bundle.domains["toys"].adapter[norm], checkpoint.state_dict[norm])


def test_a_bundle_has_one_backbone(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t5", t5())
    import_t5(folder, tmp_path / "bundle", silent)
    with refused("invalid_bundle", "bundle is a bundle with a backbone already; choose another folder"):
        import_t5(folder, tmp_path / "bundle", silent)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t5", t5())
    (folder / "model.safetensors").unlink()
    with refused("invalid_bundle", "t5 has neither model.safetensors nor model.safetensors.index.json"):
        import_t5(folder, tmp_path / "bundle", silent)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "model.safetensors.index.json has no weight_map"),
        (
            {"weight_map": {"shared.weight": "../secret.safetensors"}},
            "names '../secret.safetensors'; a shard must be",
        ),
        ({"weight_map": {"shared.weight": "gone.safetensors"}}, "gone.safetensors is not a readable safetensors file"),
        ({"weight_map": {"shared.weight": 3}}, "3 is not a readable safetensors file"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(tmp_path: Path, index: dict[str, object], message: str) -> None:
    folder = saved(tmp_path / "t5", t5())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with refused("invalid_bundle", message):
        import_t5(folder, tmp_path / "bundle", silent)


def test_a_model_that_is_no_t5_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "t5", t5())
    save_file({"bert.embeddings.weight": torch.zeros(3, 4)}, folder / "model.safetensors")
    with refused("invalid_bundle", "the checkpoint has no shared.weight, so it is not a T5's"):
        import_t5(folder, tmp_path / "bundle", silent)
