from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle.bundle import open_bundle
from model.bundle.importers.domain import CheckpointSource, DomainSource
from model.bundle.importers.vip5 import import_vip5
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.errors import Vip5Error
from model.network.config import DomainLayout
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, TinyCheckpoint, random_tensors, tiny_checkpoint, tiny_tokenizer
from tests.unit.bundle.refusals import SHARED, needs_shared, refused


class Files:
    """What an import needs, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out" / "bundle"
        self.tokenizer = folder / "tokenizer.json"
        self.catalog = folder / "items.jsonl"
        self.users = folder / "users.jsonl"
        tiny_tokenizer().save(str(self.tokenizer))
        items = [{"item_id": f"item-{n}", "index": str(n), "title": f"toy {n}", "colour": "red"} for n in range(1, 21)]
        self.catalog.write_text("\n".join(map(json.dumps, items)))
        self.users.write_text('{"user_id": "u1", "index": "7", "name": "Ann"}\n')

    def save(self, checkpoint: TinyCheckpoint) -> CheckpointSource:
        return CheckpointSource(*checkpoint.save(self.folder), self.tokenizer)

    def domain(self, name: str = "toys") -> DomainSource:
        return DomainSource(name, self.catalog)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def silent(what: str, done: int, total: int | None) -> None:
    """No progress shown."""


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_becomes_a_domain(files: Files, prefix: str) -> None:
    for number in range(1, 11):
        np.save(files.folder / f"item-{number}.npy", np.full(8, number, dtype=np.float16))
    domain = replace(files.domain(), users=files.users, features=files.folder)
    digest = import_vip5(files.save(tiny_checkpoint(prefix=prefix)), domain, files.out, silent)

    bundle = open_bundle(files.out)
    toys = bundle.domains["toys"]
    assert bundle.hash == digest
    assert bundle.backbone.config == TINY_BACKBONE
    assert toys.spec.layout == TINY_LAYOUT
    assert toys.spec.encoder is not None
    assert (toys.spec.encoder.name, toys.spec.encoder.dim) == ("vitb32", 8)
    assert toys.spec.prompts.max_tokens == 1024
    assert toys.spec.trained
    assert toys.catalog.attributes(0) == {"colour": "red"}
    assert toys.users is not None
    row = toys.users.row_of("u1")
    assert row is not None
    assert toys.users.name(row) == "Ann"
    assert toys.features_path is not None
    for tensors, expected in (
        (bundle.backbone.weights, random_tensors(expected_shapes(TINY_BACKBONE), 0)),
        (toys.adapter, random_tensors(expected_domain_shapes(TINY_BACKBONE, TINY_LAYOUT), 1)),
    ):
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "layout",
    [
        replace(TINY_LAYOUT, one_adapter_for_all_tasks=False, cross_attention_adapter=False),
        replace(TINY_LAYOUT, visual_norm=False, category_rows=0),
        replace(TINY_LAYOUT, bottleneck=0, cross_attention_adapter=False),
        replace(TINY_LAYOUT, visual_tokens=0, feature_dim=0, visual_norm=False, whole_word_rows=0),
    ],
)
def test_the_layout_is_read_from_configuration_and_tensors(files: Files, layout: DomainLayout) -> None:
    import_vip5(files.save(tiny_checkpoint(layout=layout)), files.domain(), files.out, silent)
    assert open_bundle(files.out).domains["toys"].spec.layout == layout


def test_an_untied_head_is_kept(files: Files) -> None:
    untied = replace(TINY_BACKBONE, tie_word_embeddings=False, feed_forward_proj="gated-gelu")
    import_vip5(files.save(tiny_checkpoint(untied)), files.domain(), files.out, silent)
    backbone = open_bundle(files.out).backbone
    assert backbone.config == untied
    assert "lm_head.weight" in backbone.weights


def test_several_domains_share_the_backbone(files: Files) -> None:
    import_vip5(files.save(tiny_checkpoint()), files.domain("toys"), files.out, silent)
    own = replace(TINY_LAYOUT, one_adapter_for_all_tasks=False)
    source = files.save(tiny_checkpoint(layout=own, domain_seed=2))
    import_vip5(replace(source, tokenizer=None), files.domain("games"), files.out, silent)
    bundle = open_bundle(files.out)
    assert bundle.domains.keys() == {"toys", "games"}
    assert bundle.domains["games"].spec.layout == own


def test_a_domain_of_another_backbone_is_refused_naming_the_first_difference(files: Files) -> None:
    digest = import_vip5(files.save(tiny_checkpoint()), files.domain("toys"), files.out, silent)
    other = tiny_checkpoint(domain_seed=2)
    other.state_dict["encoder.block.1.layer.0.SelfAttention.k.weight"][0, 0] += 0.125
    message = (
        "the checkpoint was not tuned on the bundle's backbone: 1 frozen parameters differ by up to 0.125, the first "
        "is encoder.block.1.layer.0.SelfAttention.k.weight; import it into another bundle"
    )
    with refused("backbone_mismatch", message):
        import_vip5(files.save(other), files.domain("games"), files.out, silent)
    assert open_bundle(files.out).hash == digest


def test_a_domain_is_replaced_only_if_that_is_wanted(files: Files) -> None:
    first = import_vip5(files.save(tiny_checkpoint()), files.domain(), files.out, silent)
    source = files.save(tiny_checkpoint(domain_seed=2))
    with refused("invalid_bundle", "the bundle has a domain 'toys' already; choose another name, or replace it"):
        import_vip5(source, files.domain(), files.out, silent)
    assert open_bundle(files.out).hash == first
    second = import_vip5(source, replace(files.domain(), replace=True), files.out, silent)
    assert open_bundle(files.out).hash == second != first


Change = Callable[[TinyCheckpoint], object]
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.state_dict.pop("encoder.final_layer_norm.weight"),
            "tiny.pth lacks encoder.final_layer_norm.weight",
        ),
        (
            lambda c: c.state_dict.update(extra=torch.zeros(1)),
            "tiny.pth has unknown extra; check that its configuration",
        ),
        (
            lambda c: [c.state_dict.pop(name) for name in EMBEDDINGS],
            "the checkpoint has no shared.weight, so it is not a T5's",
        ),
        (
            lambda c: c.state_dict.update({"lm_head.weight": c.state_dict["shared.weight"] + 1}),
            "tiny.pth: lm_head.weight differs from shared.weight, but by tie_word_embeddings they are the same tensor",
        ),
        (
            lambda c: c.state_dict.update({"decoder.embed_tokens.weight": torch.zeros(3, 3)}),
            "tiny.pth: decoder.embed_tokens.weight differs from shared.weight, but by T5 they are the same tensor",
        ),
        (
            lambda c: c.state_dict.update(
                {"encoder.block.0.layer.0.attn_adapter.adapters.direct.down_sampler.bias": torch.ones(4)}
            ),
            "adapters.sequential.down_sampler.bias, but by use_single_adapter they are the same tensor",
        ),
        (lambda c: c.state_dict["shared.weight"].fill_(torch.nan), "shared.weight has values that are NaN or infinite"),
        (lambda c: c.state_dict.update(step=3), "tiny.pth: step is not a tensor; save only the model's state_dict()"),
        (lambda c: c.state_dict.clear(), "tiny.pth is a dict, not a state dict"),
        (lambda c: c.config.pop("d_kv"), "tiny.json has no d_kv; it must be an integer"),
        (lambda c: c.config.pop("use_single_adapter"), "tiny.json has no use_single_adapter; it must be true or false"),
        (lambda c: c.config.update(d_model="16"), "tiny.json: d_model is '16'; it must be an integer"),
        (lambda c: c.config.update(d_model=True), "tiny.json: d_model is True; it must be an integer"),
        (lambda c: c.config.update(num_heads=0), "tiny.json: num_heads is 0; it must be at least 1"),
        (lambda c: c.config.update(dropout_rate="x"), "tiny.json: dropout_rate is 'x'; it must be a number"),
        (
            lambda c: c.config.update(feed_forward_proj="gelu"),
            "feed_forward_proj is 'gelu'; it must be one of relu, gated",
        ),
        (lambda c: c.config.update(reduction_factor=0), "reduction_factor is 0; it must be between 1 and d_model (16)"),
        (lambda c: c.config.update(adapter=3), "tiny.json: adapter is 3; it must be an object"),
        (
            lambda c: c.config.update(adapter={"tasks": ["rating"]}),
            "tiny.json: adapter.tasks is ['rating']; it must be",
        ),
        (lambda c: c.config.update(adapter={"non_linearity": "relu"}), "adapter.non_linearity is 'relu'; it must be"),
        (
            lambda c: c.config.update(adapter={"add_layer_norm_before_adapter": True}),
            "adapter.add_layer_norm_before_adapter is true; adapters with their own layer norms are not supported",
        ),
        (lambda c: c.config.update(use_lm_head_adapter=True), "adapters of the head are not supported"),
        (
            lambda c: c.state_dict.pop("encoder.whole_word_embeddings.weight"),
            "the checkpoint has no encoder.whole_word_embeddings.weight, which its configuration requires",
        ),
        (
            lambda c: c.config.update(category_embed=False),
            "tiny.pth has unknown encoder.category_embeddings.weight",
        ),
        (lambda c: c.config.update(n_vis_tokens=3), "has shape (16, 8), but by the configuration it is (24, 8)"),
    ],
)
def test_a_checkpoint_that_its_configuration_does_not_describe_is_refused(
    files: Files, change: Change, message: str
) -> None:
    checkpoint = tiny_checkpoint()
    change(checkpoint)
    with refused("invalid_bundle", message):
        import_vip5(files.save(checkpoint), files.domain(), files.out, silent)
    assert not files.out.exists()


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused_and_runs_none(files: Files, form: str, protocol: int) -> None:
    proof = files.folder / "pwned"
    source = files.save(tiny_checkpoint())
    content = {"shared.weight": Malicious(proof)}
    if form == "torch":
        torch.save(content, source.checkpoint, pickle_protocol=protocol)
    else:
        source.checkpoint.write_bytes(pickle.dumps(content, protocol=protocol))
    with refused("unsafe_file", "tiny.pth is refused: it has more than tensors and plain containers"):
        import_vip5(source, files.domain(), files.out, silent)
    assert not proof.exists()
    assert not files.out.exists()


def test_the_forbidden_name_is_given_and_no_advice_to_load_it_all_the_same(files: Files) -> None:
    source = files.save(tiny_checkpoint())
    torch.save({"w": Malicious(files.folder / "pwned")}, source.checkpoint)
    with pytest.raises(Vip5Error, match=r"it refers to \w+\.system") as raised:
        import_vip5(source, files.domain(), files.out, silent)
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda _: b"hello, world" * 9, lambda b: b[100:]]
)
def test_a_damaged_checkpoint_is_refused(files: Files, damage: Callable[[bytes], bytes]) -> None:
    source = files.save(tiny_checkpoint())
    source.checkpoint.write_bytes(damage(source.checkpoint.read_bytes()))
    with pytest.raises(Vip5Error, match=r"^tiny\.pth is ") as raised:
        import_vip5(source, files.domain(), files.out, silent)
    assert raised.value.code in ("invalid_bundle", "unsafe_file")
    assert "\n" not in str(raised.value)


def test_features_for_a_model_without_images_are_refused(files: Files) -> None:
    plain = replace(TINY_LAYOUT, visual_tokens=0, feature_dim=0, visual_norm=False)
    domain = replace(files.domain(), features=files.folder)
    with refused("invalid_bundle", "tiny.pth is a model without images; remove the features"):
        import_vip5(files.save(tiny_checkpoint(layout=plain)), domain, files.out, silent)


def test_a_folder_without_tokenizer_is_refused(files: Files) -> None:
    source = replace(files.save(tiny_checkpoint()), tokenizer=files.folder / "empty")
    (files.folder / "empty").mkdir()
    with refused("invalid_bundle", "empty has no tokenizer.json; save the model's fast tokenizer there"):
        import_vip5(source, files.domain(), files.out, silent)


@needs_shared
@pytest.mark.parametrize("name", ["tiny-relu", "tiny-multi"])
def test_the_authors_checkpoints_are_imported_tensor_by_tensor(tmp_path: Path, name: str) -> None:
    catalog = tmp_path / "items.jsonl"
    with gzip.open(SHARED / "data/amazon/toys/items.jsonl.gz", "rt") as lines, catalog.open("w") as out:
        for line in lines:
            item = json.loads(line)
            row = {"item_id": item["asin"], "index": str(item["item"]), "title": item["title"]}
            out.write(json.dumps(row) + "\n")
    golden = SHARED / "golden" / name
    source = CheckpointSource(golden / f"{name}.pth", golden / "config.json", SHARED / "data/t5-tokenizer")
    import_vip5(source, DomainSource("toys", catalog), tmp_path / "bundle", silent)

    bundle = open_bundle(tmp_path / "bundle")
    toys = bundle.domains["toys"]
    assert len(toys.catalog) == 11924
    theirs = torch.load(source.checkpoint, weights_only=True)
    ours = bundle.backbone.weights | toys.adapter
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    stored = {tensor.data_ptr() for key, tensor in theirs.items() if key in ours}
    assert {theirs[key].data_ptr() for key in theirs.keys() - ours.keys()} <= stored
    recorded = json.loads((SHARED / "golden/common/item_tokens_toys.json").read_text())
    for place, index in enumerate(toys.catalog.indices):
        assert [*toys.identifiers.row(place), 1] == recorded[int(index) - 1]


def test_a_column_that_was_likely_meant_for_titles_is_told(files: Files) -> None:
    files.catalog.write_text('{"item_id": "a", "index": "1", "name": "toy"}')
    told: list[str] = []
    import_vip5(files.save(tiny_checkpoint()), replace(files.domain(), notice=told.append), files.out, silent)
    assert told == ["items.jsonl: 'name' may be meant for 'title': rename the columns that are to be read"]
