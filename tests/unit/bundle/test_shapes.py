from __future__ import annotations

import json
from dataclasses import replace

import pytest
from transformers import T5Config, T5ForConditionalGeneration

from model.bundle.shapes import expected_domain_shapes, expected_norm_shapes, expected_shapes
from model.network.config import BackboneConfig, FeedForward
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, tiny_checkpoint
from tests.unit.bundle.refusals import SHARED, needs_shared


@needs_shared
@pytest.mark.parametrize("name", ["tiny-relu", "tiny-multi"])
def test_a_checkpoint_of_the_authors_has_exactly_the_expected_tensors(name: str) -> None:
    config = json.loads((SHARED / "golden" / name / "config.json").read_text())
    recorded = json.loads((SHARED / "golden" / name / "state_dict_keys.json").read_text())["keys"]
    dimensions = ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers")
    layout = replace(
        TINY_LAYOUT,
        bottleneck=config["d_model"] // config["reduction_factor"],
        cross_attention_adapter=config["add_adapter_cross_attn"],
        one_adapter_for_all_tasks=config["use_single_adapter"],
        visual_tokens=config["n_vis_tokens"],
        feature_dim=config["feat_dim"],
        whole_word_rows=1024,
    )
    checkpoint = tiny_checkpoint(BackboneConfig(**{key: config[key] for key in dimensions}), layout)
    assert {name: list(tensor.shape) for name, tensor in checkpoint.state_dict.items()} == recorded


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_backbone_and_norms_are_the_tensors_of_a_t5(feed_forward: FeedForward) -> None:
    theirs = T5ForConditionalGeneration(
        T5Config(
            vocab_size=50,
            d_model=16,
            d_kv=4,
            d_ff=24,
            num_heads=3,
            num_layers=2,
            num_decoder_layers=1,
            feed_forward_proj=feed_forward,
        )
    )
    config = replace(TINY_BACKBONE, vocab_size=50, num_decoder_layers=1, feed_forward_proj=feed_forward)
    ours = expected_shapes(config) | expected_norm_shapes(config)
    assert ours == {name: tuple(tensor.shape) for name, tensor in theirs.named_parameters()}


def test_an_untied_backbone_has_a_head_of_its_own() -> None:
    tied, untied = (expected_shapes(replace(TINY_BACKBONE, tie_word_embeddings=tie)) for tie in (True, False))
    assert untied.keys() - tied.keys() == {"lm_head.weight"}


def test_a_domain_without_images_adapters_and_tables_is_its_layer_norms() -> None:
    plain = replace(TINY_LAYOUT, bottleneck=0, visual_tokens=0, feature_dim=0, whole_word_rows=0, category_rows=0)
    assert expected_domain_shapes(TINY_BACKBONE, plain) == expected_norm_shapes(TINY_BACKBONE)


def test_one_adapter_for_all_tasks_stands_under_the_first_task_only() -> None:
    shared = expected_domain_shapes(TINY_BACKBONE, TINY_LAYOUT)
    own = expected_domain_shapes(TINY_BACKBONE, replace(TINY_LAYOUT, one_adapter_for_all_tasks=False))
    assert {name.split(".adapters.")[1].split(".")[0] for name in own.keys() - shared.keys()} == {
        "direct",
        "explanation",
    }
    assert not any(".adapters.direct." in name for name in shared)
