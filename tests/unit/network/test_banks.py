"""Domains side by side in banks: each computes what it computes alone, whatever stands beside it."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch

from model.bundle.shapes import VISUAL
from model.network.config import TASKS
from model.network.network import EncoderBatch
from model.network.weights import domain_weights
from tests.unit.network.networks import LAYOUTS, batch_for, network_of, rows_as_tensors, targets_for

SAME = 1e-5


@pytest.mark.parametrize("names", list(permutations(LAYOUTS, 2)))
@torch.no_grad()
def test_a_domain_in_a_bank_computes_what_it_does_alone(names: tuple[str, str]) -> None:
    alone, both = network_of(names[:1]), network_of(names)
    targets = targets_for(alone)
    for task in TASKS:
        expected = alone(batch_for(alone, 0, task), targets)
        batch = batch_for(both, 0, task)
        assert _difference(both(batch, targets), expected) < SAME
        assert _difference(both(_banked(batch), targets), expected) < SAME


@torch.no_grad()
def test_all_layouts_in_one_bank_compute_what_each_does_alone() -> None:
    names = sorted(LAYOUTS)
    together = network_of(names)
    for slot, name in enumerate(names):
        alone = network_of([name])
        targets = targets_for(alone)
        expected = alone(batch_for(alone, 0, "explanation"), targets)
        assert _difference(together(batch_for(together, slot, "explanation"), targets), expected) < SAME


@pytest.mark.parametrize(("name", "differs"), [("all", False), ("larger", True), ("nothing", False)])
@torch.no_grad()
def test_each_task_reads_its_own_adapter_unless_there_is_one_for_all(name: str, *, differs: bool) -> None:
    network = network_of([name, "larger"])
    targets = targets_for(network)
    logits = [network(batch_for(network, 0, task), targets) for task in TASKS]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (_difference(logits[first], logits[second]) > 1e-3) == differs


@pytest.mark.parametrize("part", ["features", "whole_word_ids", "category_ids"])
@torch.no_grad()
def test_every_part_of_a_prompt_shows_in_the_encoder_states(part: str) -> None:
    network = network_of(["all"])
    batch = batch_for(network, 0)
    states, _ = network.encode(batch)
    kept = batch.__dict__ | {part: torch.zeros_like(getattr(batch, part))}
    assert _difference(network.encode(EncoderBatch(**kept))[0], states) > 1e-2


@torch.no_grad()
def test_images_stand_in_the_order_of_the_text() -> None:
    network = network_of(["larger", "all"])
    batch = batch_for(network, 1)
    assert network.visual is not None
    mapped = network.visual(batch.features, 1)  # [B, I, V, D], of which this domain uses the first two tokens
    x = network.visual.place(torch.zeros(2, batch.input_ids.shape[1], 16), batch.category_ids, mapped, 1)
    expected = mapped[:, :, :2].flatten(1, 2)
    assert torch.equal(x[batch.category_ids.bool()].view_as(expected), expected)
    assert not x[~batch.category_ids.bool()].any()


@pytest.mark.parametrize("name", ["all", "larger", "no_cross_adapter"])
@torch.no_grad()
def test_an_image_is_mapped_by_two_layers_and_a_norm_over_all_its_values_if_there_is_one(name: str) -> None:
    layout = LAYOUTS[name]
    network = network_of([name, "larger"])
    features = torch.randn(2, 3, network.feature_dim)
    features[..., layout.feature_dim :] = 0
    tensors = domain_weights(network, 0)
    w1, b1, w2, b2 = (tensors[f"{VISUAL}.0.model.{part}"] for part in ("0.weight", "0.bias", "2.weight", "2.bias"))
    expected = torch.tanh(features[..., : layout.feature_dim] @ w1.T + b1) @ w2.T + b2
    if layout.visual_norm:
        expected = tensors[f"{VISUAL}.1.weight"] * expected / (expected.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert network.visual is not None
    mapped = network.visual(features, 0)[:, :, : layout.visual_tokens]
    assert _difference(mapped.flatten(2), expected) < SAME


@torch.no_grad()
def test_the_token_below_an_image_does_not_show() -> None:
    network = network_of(["all"])
    batch = batch_for(network, 0)
    other = replace(batch, input_ids=batch.input_ids.masked_fill(batch.category_ids.bool(), 7))
    assert torch.equal(network.embed(other), network.embed(batch))


@torch.no_grad()
def test_padding_does_not_change_what_is_decoded() -> None:
    network = network_of(["all"])
    batch, targets = batch_for(network, 0), targets_for(network)
    padded = EncoderBatch(
        input_ids=_pad(batch.input_ids),
        whole_word_ids=_pad(batch.whole_word_ids),
        category_ids=_pad(batch.category_ids),
        features=torch.nn.functional.pad(batch.features, (0, 0, 0, 3)),
        rows=batch.rows,
    )
    assert _difference(network(padded, targets), network(batch, targets)) < SAME


def _pad(ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(ids, (0, 5))


def _banked(batch: EncoderBatch) -> EncoderBatch:
    return replace(batch, rows=rows_as_tensors(batch.rows, 2))


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).abs().max())
