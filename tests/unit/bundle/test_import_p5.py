from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer

from model.bundle.bundle import open_bundle
from model.bundle.importers.domain import CheckpointSource, DomainSource
from model.bundle.importers.p5 import import_p5
from model.bundle.importers.vocabulary import add_p5_tokens
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, TinyCheckpoint, tiny_checkpoint, tiny_tokenizer
from tests.unit.bundle.refusals import SHARED, needs_shared, refused

P5_LAYOUT = replace(
    TINY_LAYOUT,
    bottleneck=0,
    cross_attention_adapter=False,
    visual_tokens=0,
    feature_dim=0,
    visual_norm=False,
    whole_word_rows=512,
    category_rows=0,
)
NUM_TOKENS = TINY_BACKBONE.vocab_size
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def silent(what: str, done: int, total: int | None) -> None:
    """No progress shown."""


def p5_checkpoint(extra_rows: int = 0, prefix: str = "") -> TinyCheckpoint:
    backbone = replace(TINY_BACKBONE, vocab_size=NUM_TOKENS + extra_rows)
    checkpoint = tiny_checkpoint(backbone, P5_LAYOUT, prefix=prefix)
    checkpoint.state_dict[prefix + UNUSED] = torch.zeros(32, 3)
    dimensions = ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers")
    return TinyCheckpoint(checkpoint.state_dict, {key: checkpoint.config[key] for key in dimensions})


def saved(folder: Path, checkpoint: TinyCheckpoint, indices: list[str]) -> tuple[CheckpointSource, DomainSource]:
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    rows = [{"item_id": f"item-{row}", "index": index} for row, index in enumerate(indices)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return CheckpointSource(*checkpoint.save(folder), folder), DomainSource("toys", folder / "items.jsonl")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_whole_t5_becomes_the_backbone_and_its_norms_the_domain(tmp_path: Path, prefix: str) -> None:
    checkpoint = p5_checkpoint(prefix=prefix)
    source, domain = saved(tmp_path, checkpoint, ["1", "2"])
    digest = import_p5(source, domain, tmp_path / "bundle", silent)
    bundle = open_bundle(tmp_path / "bundle")
    toys = bundle.domains["toys"]
    assert bundle.hash == digest
    assert toys.spec.layout == P5_LAYOUT
    assert toys.spec.encoder is None
    assert toys.spec.prompts.max_tokens == 512
    assert {name for name in toys.adapter if "norm" not in name} == {"encoder.whole_word_embeddings.weight"}
    for name, tensor in (bundle.backbone.weights | toys.adapter).items():
        assert torch.equal(tensor, checkpoint.state_dict[prefix + name])


def test_extra_tokens_have_the_ids_that_p5_gives_them(tmp_path: Path) -> None:
    checkpoint = p5_checkpoint(extra_rows=7)
    checkpoint.config.update(user_extra_ids=3, item_extra_ids=4)
    source, domain = saved(tmp_path, checkpoint, ["<item_id_0>", "<item_id_3>", "<item_id_3> <item_id_0>"])
    import_p5(source, domain, tmp_path / "bundle", silent)
    bundle = open_bundle(tmp_path / "bundle")
    toys = bundle.domains["toys"]
    assert [toys.identifiers.row(row).tolist() for row in range(3)] == [
        [NUM_TOKENS + 3 + 4 - 0 - 1],
        [NUM_TOKENS + 3 + 4 - 3 - 1],
        [NUM_TOKENS + 3, NUM_TOKENS + 6],
    ]
    assert bundle.tokenizer.words("<user_id_2> <user_id_0>") == [NUM_TOKENS, NUM_TOKENS + 2]
    assert bundle.tokenizer.vocab_size == NUM_TOKENS + 7


def test_an_embedding_too_small_for_the_extra_tokens_is_refused(tmp_path: Path) -> None:
    checkpoint = p5_checkpoint(extra_rows=6)
    checkpoint.config.update(user_extra_ids=3, item_extra_ids=4)
    source, domain = saved(tmp_path, checkpoint, ["1"])
    message = f"has {NUM_TOKENS + 7} tokens, but the embedding has {NUM_TOKENS + 6} rows"
    with refused("invalid_bundle", message):
        import_p5(source, domain, tmp_path / "bundle", silent)


def test_a_negative_number_of_extra_tokens_is_refused(tmp_path: Path) -> None:
    checkpoint = p5_checkpoint()
    checkpoint.config.update(user_extra_ids=-1)
    source, domain = saved(tmp_path, checkpoint, ["1"])
    with refused("invalid_bundle", "user_extra_ids and item_extra_ids are -1 and 0"):
        import_p5(source, domain, tmp_path / "bundle", silent)


def test_a_missing_whole_word_table_is_refused_only_if_it_is_asked_for(tmp_path: Path) -> None:
    checkpoint = p5_checkpoint()
    del checkpoint.state_dict["encoder.whole_word_embeddings.weight"]
    source, domain = saved(tmp_path, checkpoint, ["1"])
    import_p5(source, domain, tmp_path / "bundle", silent)
    assert open_bundle(tmp_path / "bundle").domains["toys"].spec.layout.whole_word_rows == 0

    checkpoint.config.update(whole_word_embed=True)
    source, domain = saved(tmp_path, checkpoint, ["1"])
    with refused("invalid_bundle", "the checkpoint has no encoder.whole_word_embeddings.weight"):
        import_p5(source, domain, tmp_path / "other", silent)


def test_a_vip5_is_no_p5(tmp_path: Path) -> None:
    source, domain = saved(tmp_path, tiny_checkpoint(), ["1"])
    with refused("invalid_bundle", "tiny.pth has unknown decoder.block.0.layer.0.attn_adapter.adapters.direct"):
        import_p5(source, domain, tmp_path / "bundle", silent)


def test_a_tokenizer_that_has_the_extra_tokens_keeps_them() -> None:
    tokenizer = tiny_tokenizer()
    add_p5_tokens(tokenizer, 2, 2)
    before = tokenizer.get_vocab(with_added_tokens=True)
    add_p5_tokens(tokenizer, 2, 2)
    assert tokenizer.get_vocab(with_added_tokens=True) == before


def test_a_tokenizer_that_numbers_the_extra_tokens_otherwise_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens([AddedToken(f"<item_id_{number}>") for number in range(2)])
    with refused("invalid_bundle", f"the tokenizer gives <item_id_1> the id {NUM_TOKENS + 1}"):
        add_p5_tokens(tokenizer, 0, 2)


@needs_shared
def test_extra_tokens_follow_the_32100_of_t5() -> None:
    tokenizer = Tokenizer.from_file(str(SHARED / "data/t5-tokenizer/tokenizer.json"))
    add_p5_tokens(tokenizer, 10, 5)
    for number, expected in ((0, 32109), (9, 32100)):
        assert tokenizer.token_to_id(f"<user_id_{number}>") == expected
    for number, expected in ((0, 32114), (4, 32110)):
        assert tokenizer.token_to_id(f"<item_id_{number}>") == expected
