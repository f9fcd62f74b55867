"""Beams as a tree, and banks packed side by side, against the plain way to step and to gather."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.engine.stepper import NetworkStepper
from model.network.banks import RowIndex
from model.network.beam_tree import BeamTree, TreePlan
from model.network.network import START_ID, EncoderBatch, Vip5Network
from model.network.packing import PackedNetwork
from model.network.slots import place_domain, with_layout
from tests.unit.network.networks import LAYOUTS, batch_for, domain_tensors, network_of, rows_as_tensors, targets_for

SAME = 2e-5
NUM_STEPS = 5


@given(layout=st.sampled_from(sorted(LAYOUTS)), num_beams=st.integers(1, 18), seed=st.integers(0, 1000))
@settings(max_examples=12, deadline=None, derandomize=True)
@torch.no_grad()
def test_a_tree_of_beams_gives_the_logits_of_beams_that_are_moved(layout: str, num_beams: int, seed: int) -> None:
    network = network_of([layout])
    batch = batch_for(network, 0, "direct", seed=seed)
    memory = network.memorise(batch)
    moving = NetworkStepper(network, memory, batch.rows, num_beams=num_beams, max_length=NUM_STEPS)
    tree = _tree(network, num_beams)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((2, 1), START_ID)
    parents: Tensor | None = None
    for _ in range(NUM_STEPS):
        tree.branch(parents)
        logits = network.grow(tokens, tree, memory, batch.rows)
        expected = moving.step(tokens, parents)
        assert float((logits - expected).abs().max()) < SAME * float(1 + expected.abs().max())
        parents = torch.randint(0, tokens.shape[1], (2, num_beams), generator=generator)
        tokens = torch.randint(2, network.config.vocab_size, (2, num_beams), generator=generator)


def test_what_was_in_the_places_of_later_steps_does_not_matter() -> None:
    network = network_of(["all"])
    batch = batch_for(network, 0)
    memory = network.memorise(batch)
    clean, used = _tree(network, 3), _tree(network, 3)
    used._data.normal_(generator=torch.Generator().manual_seed(0))
    for tree in (clean, used):
        tree.branch(None)
    tokens = torch.full((2, 1), START_ID)
    first, second = (network.grow(tokens, tree, memory, batch.rows) for tree in (clean, used))
    assert torch.equal(first, second)


@pytest.mark.parametrize("is_shared", [True, False])
@torch.no_grad()
def test_packed_banks_give_every_row_what_it_reads_from_the_banks_themselves(*, is_shared: bool) -> None:
    names = ["all", "larger", "no_cross_adapter"]
    network, plain = network_of(names), network_of(names)
    packed = PackedNetwork.of(network)
    for slot in range(len(names)):
        batch = batch_for(plain, slot, "explanation")
        expected = plain(batch, targets_for(plain))
        tensors = rows_as_tensors(batch.rows, 1 if is_shared else 2)
        assert isinstance(tensors.domain, Tensor)
        assert isinstance(tensors.adapter, Tensor)
        found = network(replace(batch, rows=packed.rows(tensors.domain, tensors.adapter)), targets_for(plain))
        assert float((found - expected).abs().max()) < SAME * float(1 + expected.abs().max())


@torch.no_grad()
def test_a_domain_that_is_placed_after_packing_is_read_like_the_others() -> None:
    network = with_layout(network_of(["all", "larger"]), 2, LAYOUTS["nothing"])
    packed = PackedNetwork.of(network)
    place_domain(network, 2, LAYOUTS["no_cross_adapter"], domain_tensors(LAYOUTS["no_cross_adapter"], 5))
    batch = batch_for(network, 2)
    rows = packed.rows(torch.tensor([2, 2]), torch.tensor([network.adapter_row(2, "sequential")] * 2))
    assert _differ(network, batch, rows) < SAME
    assert _differ(network, batch, RowIndex(domain=1, adapter=0)) > 1e-2


@torch.no_grad()
def test_logits_of_a_bfloat16_network_are_not_rounded_to_it() -> None:
    network = network_of(["all"]).to(torch.bfloat16)
    states = torch.randn(2, 3, network.config.d_model, generator=torch.Generator().manual_seed(0)).bfloat16()
    logits = network.logits(states)
    scaled = states * network.config.d_model**-0.5
    assert torch.equal(logits, scaled.float() @ network.shared.float().t())
    assert not torch.equal(logits, logits.bfloat16().float())


def _tree(network: Vip5Network, num_beams: int) -> BeamTree:
    plan = TreePlan.of(network.decoder.positions(NUM_STEPS), num_beams)
    return BeamTree(plan, network.new_tree_data(2, plan))


def _differ(network: Vip5Network, batch: EncoderBatch, rows: RowIndex) -> float:
    targets = targets_for(network)
    expected = network(batch, targets)
    return float((network(replace(batch, rows=rows), targets) - expected).abs().max() / (1 + expected.abs().max()))
