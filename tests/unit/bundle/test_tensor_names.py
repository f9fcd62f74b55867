"""State dicts as training tools save them: what has one meaning is imported, all else is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from transformers import T5Config, T5ForConditionalGeneration

from model.bundle.bundle import open_bundle
from model.bundle.importers.domain import CheckpointSource, DomainSource
from model.bundle.importers.t5 import import_t5
from model.bundle.importers.vip5 import import_vip5
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, TinyCheckpoint, tiny_checkpoint, tiny_tokenizer
from tests.unit.bundle.refusals import refused

SHARED, ENCODER, DECODER, HEAD = (
    "shared.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "lm_head.weight",
)
UNTIED = replace(TINY_BACKBONE, tie_word_embeddings=False)
State = dict[str, torch.Tensor]


def silent(what: str, done: int, total: int | None) -> None:
    """No progress shown."""


def imported(folder: Path, checkpoint: TinyCheckpoint, content: object) -> Path:
    """The bundle made of a file with this content, beside the checkpoint's configuration."""
    path, config = checkpoint.save(folder)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "items.jsonl").write_text('{"item_id": "a", "index": "1"}')
    source = CheckpointSource(path, config, folder / "tokenizer.json")
    import_vip5(source, DomainSource("toys", folder / "items.jsonl"), folder / "bundle", silent)
    return folder / "bundle"


def require_same_weights(root: Path, state: State) -> None:
    bundle = open_bundle(root)
    for name, tensor in (bundle.backbone.weights | bundle.domains["toys"].adapter).items():
        assert torch.equal(tensor, state[name])


PREFIXES = [
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "model._orig_mod.",
    "_fsdp_wrapped_module.",
    "_forward_module.module.",
    "lightning.net.t5.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_prefix_of_all_names_is_removed(tmp_path: Path, prefix: str) -> None:
    checkpoint = tiny_checkpoint()
    content = {prefix + name: tensor for name, tensor in checkpoint.state_dict.items()}
    require_same_weights(imported(tmp_path, checkpoint, content), checkpoint.state_dict)


@pytest.mark.parametrize("part", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_parts_that_tools_insert_are_removed_wherever_they_are(tmp_path: Path, part: str) -> None:
    checkpoint = tiny_checkpoint()
    content = {name.replace(".block.1.", f".block.1.{part}."): t for name, t in checkpoint.state_dict.items()}
    assert content.keys() != checkpoint.state_dict.keys()
    require_same_weights(imported(tmp_path, checkpoint, content), checkpoint.state_dict)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"model_state_dict": state, "epoch": 3, "optimizer_state_dict": {"state": {}, "lr": 0.1}},
        lambda state: {"module": state, "global_steps": 7, "ds_config": {"a": [1]}},
        lambda state: {"model": state, "ema": {"decay": torch.zeros(1)}},
        lambda state: {"checkpoint": {"model": state, "step": 3}},
        lambda state: {
            "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
            "pytorch-lightning_version": "2.1",
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        },
    ],
    ids=["state_dict", "model_state_dict", "deepspeed", "model", "nested", "lightning"],
)
def test_a_state_dict_within_a_document_is_found(tmp_path: Path, wrap: Callable[[State], object]) -> None:
    checkpoint = tiny_checkpoint()
    require_same_weights(imported(tmp_path, checkpoint, wrap(checkpoint.state_dict)), checkpoint.state_dict)


@pytest.mark.parametrize("kept", [SHARED, ENCODER, DECODER, HEAD])
def test_any_one_name_of_the_shared_embedding_is_enough(tmp_path: Path, kept: str) -> None:
    checkpoint = tiny_checkpoint()
    others = {SHARED, ENCODER, DECODER, HEAD} - {kept}
    content = {name: tensor for name, tensor in checkpoint.state_dict.items() if name not in others}
    require_same_weights(imported(tmp_path, checkpoint, content), checkpoint.state_dict)


@pytest.mark.parametrize("kept", ["sequential", "direct", "explanation"])
def test_any_one_name_of_an_adapter_for_all_tasks_is_enough(tmp_path: Path, kept: str) -> None:
    checkpoint = tiny_checkpoint()
    dropped = [f".adapters.{task}." for task in ("sequential", "direct", "explanation") if task != kept]
    content = {n: tensor for n, tensor in checkpoint.state_dict.items() if not any(part in n for part in dropped)}
    require_same_weights(imported(tmp_path, checkpoint, content), checkpoint.state_dict)


def test_an_untied_head_beside_an_alias_of_the_embedding_is_kept(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(UNTIED)
    content = {name: tensor for name, tensor in checkpoint.state_dict.items() if name not in {SHARED, ENCODER}}
    require_same_weights(imported(tmp_path, checkpoint, content), checkpoint.state_dict)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


Change = Callable[[State], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {**s, **prefixed(s, "module.")},
            "tiny.pth has the weights of several T5s, under no prefix and 'module.'; save the state dict of one model",
        ),
        (
            lambda s: {**prefixed(s, "student."), **prefixed(s, "teacher.")},
            "tiny.pth has the weights of several T5s, under 'student.' and 'teacher.'",
        ),
        (
            lambda s: {**s, "_orig_mod.shared.weight": s[SHARED]},
            "tiny.pth has shared.weight twice, as shared.weight and _orig_mod.shared.weight",
        ),
        (
            lambda s: {**prefixed(s, "model."), "loss.weight": torch.zeros(1)},
            "tiny.pth: the T5's names begin with 'model.', but loss.weight does not; save only the state dict of",
        ),
        (
            lambda s: {"model": s, "ema": dict(s)},
            "tiny.pth has several state dicts, ema, model; save only that of the model to import",
        ),
        (
            lambda s: {**prefixed(s, "base_model.model."), "base_model.model.q.lora_A.default.weight": torch.ones(1)},
            "tiny.pth has weights of PEFT that are not merged into the model, base_model.model.q.lora_A.default.weight",
        ),
        (lambda s: {"model": {"epoch": 3}}, "tiny.pth: model is not a tensor; save only the model's state_dict()"),
        (lambda s: {"state_dict": {}}, "tiny.pth: state_dict is not a tensor; save only the model's state_dict()"),
        (
            lambda s: {n: t + (n == DECODER) for n, t in s.items() if n not in {SHARED, HEAD}},
            "decoder.embed_tokens.weight differs from encoder.embed_tokens.weight, but by T5 they are the same tensor",
        ),
        (
            lambda s: {n: t + (n == HEAD) for n, t in s.items() if n not in {SHARED, ENCODER}},
            "lm_head.weight differs from decoder.embed_tokens.weight, but by tie_word_embeddings they are the same",
        ),
        (
            lambda s: {**s, HEAD: s[HEAD] + 1},
            "lm_head.weight differs from shared.weight, but by tie_word_embeddings they are the same tensor",
        ),
        (
            lambda s: {f"bert.{n}": t for n, t in s.items() if n not in {SHARED, ENCODER, DECODER, HEAD}},
            "so it is not a T5's; give the state dict of the whole model (tiny.pth: it has bert.decoder.block.0.",
        ),
    ],
)
def test_what_has_more_than_one_meaning_is_refused_with_the_reason(
    tmp_path: Path, change: Change, message: str
) -> None:
    checkpoint = tiny_checkpoint()
    with refused("invalid_bundle", message):
        imported(tmp_path, checkpoint, change(checkpoint.state_dict))
    assert not (tmp_path / "bundle").exists()


def test_an_untied_head_does_not_stand_for_the_embedding(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(UNTIED)
    content = {n: t for n, t in checkpoint.state_dict.items() if n not in {SHARED, ENCODER, DECODER}}
    with refused("invalid_bundle", "it has lm_head.weight, which the configuration does not tie to it"):
        imported(tmp_path, checkpoint, content)


def tiny_t5(folder: Path) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=TINY_BACKBONE.vocab_size,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_heads=3,
        num_layers=2,
        num_decoder_layers=2,
    )
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def test_a_t5_saved_by_save_model_is_the_same(tmp_path: Path) -> None:
    model = tiny_t5(tmp_path / "t5")
    whole = import_t5(tmp_path / "t5", tmp_path / "a", silent)
    save_model(model, str(tmp_path / "t5" / "model.safetensors"))
    assert SHARED not in load_file(tmp_path / "t5" / "model.safetensors")
    assert import_t5(tmp_path / "t5", tmp_path / "b", silent) == whole


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model."])
def test_a_compiled_t5_is_the_same(tmp_path: Path, prefix: str) -> None:
    tiny_t5(tmp_path / "t5")
    whole = import_t5(tmp_path / "t5", tmp_path / "a", silent)
    weights = load_file(tmp_path / "t5" / "model.safetensors")
    save_file(prefixed(weights, prefix), tmp_path / "t5" / "model.safetensors")
    assert import_t5(tmp_path / "t5", tmp_path / "b", silent) == whole


def test_layouts_without_adapters_need_none(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layout=replace(TINY_LAYOUT, bottleneck=0, cross_attention_adapter=False))
    require_same_weights(imported(tmp_path, checkpoint, checkpoint.state_dict), checkpoint.state_dict)


@pytest.mark.parametrize("kept", [SHARED, DECODER])
def test_a_checkpoint_that_safetensors_saved_is_the_same(tmp_path: Path, kept: str) -> None:
    checkpoint = tiny_checkpoint()
    state = {
        n: t.clone() for n, t in checkpoint.state_dict.items() if n not in {SHARED, ENCODER, DECODER, HEAD} - {kept}
    }
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "any name")
    root = imported(tmp_path, checkpoint, (tmp_path / "any name").read_bytes())
    require_same_weights(root, checkpoint.state_dict)


def test_the_counter_of_an_averaged_model_is_no_weight(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    content = {"n_averaged": torch.tensor(3), **prefixed(checkpoint.state_dict, "module.")}
    require_same_weights(imported(tmp_path, checkpoint, content), checkpoint.state_dict)
