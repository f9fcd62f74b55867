"""Decoding step by step, with beams that branch and die, against teacher forcing of each beam's whole path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine.stepper import NetworkStepper
from model.network.cache import KeyValueCache
from model.network.config import BackboneConfig, FeedForward
from model.network.network import START_ID
from tests.tiny import TINY_BACKBONE
from tests.unit.network.networks import LAYOUTS, batch_for, network_of, rows_as_tensors

TOLERANCE = 2e-5


@st.composite
def configs(draw: st.DrawFn) -> BackboneConfig:
    feed_forward: FeedForward = draw(st.sampled_from(("relu", "gated-gelu")))
    return replace(
        TINY_BACKBONE,
        d_model=12,
        d_kv=draw(st.integers(1, 6)),
        num_heads=draw(st.integers(1, 4)),
        num_layers=draw(st.integers(1, 2)),
        num_decoder_layers=draw(st.integers(1, 3)),
        feed_forward_proj=feed_forward,
        tie_word_embeddings=draw(st.booleans()),
        relative_attention_num_buckets=8,
        relative_attention_max_distance=draw(st.sampled_from([5, 20])),
    )


@given(
    config=configs(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    num_beams=st.integers(1, 4),
    is_banked=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None, derandomize=True)
@torch.no_grad()
def test_stepping_equals_teacher_forcing(
    config: BackboneConfig, layout: str, num_beams: int, *, is_banked: bool, seed: int
) -> None:
    network = network_of([layout], config)
    batch = batch_for(network, 0, "direct", seed=seed)
    if is_banked:
        batch = replace(batch, rows=rows_as_tensors(batch.rows, 2))
    memory = network.memorise(batch)
    num_steps = 6
    stepper = NetworkStepper(network, memory, batch.rows, num_beams=num_beams, max_length=num_steps)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((2, 1), START_ID)
    paths = torch.zeros(2, 1, 0, dtype=torch.int64)  # what each beam has decoded, [B, n, t]
    parents = None
    for _ in range(num_steps):
        logits = stepper.step(tokens, parents)
        for beam in range(paths.shape[1]):
            targets = torch.nn.functional.pad(paths[:, beam], (0, 1))
            expected = network.decode(targets, memory, batch.rows)[:, -1]
            assert float((logits[:, beam] - expected).abs().max()) < TOLERANCE * float(1 + expected.abs().max())
        parents = torch.randint(0, paths.shape[1], (2, num_beams), generator=generator)
        tokens = torch.randint(2, config.vocab_size, (2, num_beams), generator=generator)
        history = paths.gather(1, parents.unsqueeze(-1).expand(-1, -1, paths.shape[2]))
        paths = torch.cat([history, tokens.unsqueeze(-1)], dim=2)


def test_a_cache_gives_back_what_each_beam_wrote() -> None:
    cache = KeyValueCache(torch.full((2, 2, 1, 3, 1, 4, 2), 9.0))
    first = torch.tensor([[[[1.0, 2.0]]]])  # one beam, one head
    for layer in range(2):
        keys, values = cache.append(layer, first + layer, -first - layer)
        assert torch.equal(keys, (first + layer).transpose(1, 2).reshape(1, 1, 1, 2))
        assert torch.equal(values, -keys)
    cache.advance()
    cache.reorder(torch.tensor([[0, 0, 0]]))
    written = torch.arange(6.0).reshape(1, 3, 1, 2) + 10
    keys, _ = cache.append(1, written, written)
    assert keys.shape == (3, 1, 2, 2)
    assert keys[:, 0, 0].tolist() == [[2.0, 3.0]] * 3
    assert keys[:, 0, 1].tolist() == [[10.0, 11.0], [12.0, 13.0], [14.0, 15.0]]


def test_reordering_a_cache_mixes_no_rows() -> None:
    keys, values = torch.arange(12.0).reshape(2, 2, 3, 1, 1)
    cache = KeyValueCache(torch.zeros(1, 2, 2, 3, 1, 2, 1))
    cache.append(0, keys, values)
    cache.advance()
    cache.reorder(torch.tensor([[2, 0, 0], [1, 1, 2]]))
    keys, values = cache.append(0, torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1))
    assert keys[:, 0, 0, 0].tolist() == [2, 0, 0, 4, 4, 5]
    assert values[:, 0, 0, 0].tolist() == [8, 6, 6, 10, 10, 11]


@pytest.mark.parametrize("length", [1, 6])
def test_the_bias_of_a_step_is_the_last_row_of_all_positions(length: int) -> None:
    network = network_of(["nothing"])
    full = network.decoder.positions(length)
    bias = network.step_biases(length)[-1]
    assert torch.equal(bias[0, :, 0], full[0, :, -1, :length])
