from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.errors import BundleError
from model.network.banks import AdapterBank, RMSNormBank
from model.network.loss import IGNORED, vip5_loss
from model.network.network import Vip5Network
from model.network.visual import VisualMapperBank
from model.network.weights import domain_weights, freeze, load_backbone, load_domain
from tests.tiny import TINY_BACKBONE
from tests.unit.network.networks import (
    LAYOUTS,
    backbone_tensors,
    batch_for,
    domain_tensors,
    network_of,
    seed_of,
    targets_for,
    unfilled,
)

NORM = "decoder.block.1.layer.1.layer_norm.weight"
ADAPTER = "encoder.block.0.layer.1.ff_adapter.adapters.sequential.up_sampler.weight"


@pytest.mark.parametrize("name", ["shared.weight", "encoder.block.1.layer.0.SelfAttention.k.weight"])
def test_a_missing_tensor_of_the_backbone_is_named_with_its_shape(name: str) -> None:
    tensors = backbone_tensors()
    shape = list(tensors.pop(name).shape)
    with pytest.raises(BundleError) as raised:
        load_backbone(unfilled(["all"]), tensors)
    assert str(raised.value) == f"the tensor {name} of shape {shape} is missing; check the checkpoint"


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    tensors = backbone_tensors() | {"decoder.block.0.layer.2.DenseReluDense.wo.weight": torch.zeros(16, 23)}
    with pytest.raises(BundleError) as raised:
        load_backbone(unfilled(["all"]), tensors)
    assert str(raised.value) == (
        "the tensor decoder.block.0.layer.2.DenseReluDense.wo.weight has shape [16, 23], but by the configuration it "
        "is [16, 24]; check that both describe the same model"
    )


@pytest.mark.parametrize(("name", "shape"), [(NORM, [16]), (ADAPTER, [16, 4])])
def test_a_missing_tensor_of_a_domain_is_named_with_the_domains_own_shape(name: str, shape: list[int]) -> None:
    tensors = domain_tensors(LAYOUTS["all"], seed=1)
    del tensors[name]
    with pytest.raises(BundleError) as raised:
        load_domain(unfilled(["larger", "all"]), 1, tensors)
    assert str(raised.value) == f"the tensor {name} of shape {shape} is missing; check the checkpoint"


def test_an_adapter_as_wide_as_the_bank_but_not_as_the_layout_is_refused() -> None:
    tensors = domain_tensors(LAYOUTS["all"], seed=1) | {ADAPTER: torch.zeros(16, 6)}
    with pytest.raises(BundleError) as raised:
        load_domain(unfilled(["larger", "all"]), 1, tensors)
    assert str(raised.value) == (
        f"the tensor {ADAPTER} has shape [16, 6], but by the configuration it is [16, 4]; "
        "check that both describe the same model"
    )


def test_tensors_that_a_domain_does_not_have_are_not_asked_for() -> None:
    network = unfilled(["all", "nothing"])
    norms = {name: tensor for name, tensor in domain_tensors(LAYOUTS["all"], 1).items() if "layer_norm" in name}
    load_domain(network, 1, norms)
    assert domain_weights(network, 1).keys() == norms.keys()


def test_a_domains_weights_come_out_of_the_banks_as_they_went_in() -> None:
    names = sorted(LAYOUTS)
    network = network_of(names)
    for slot, name in enumerate(names):
        expected = domain_tensors(LAYOUTS[name], seed_of(name))
        found = domain_weights(network, slot)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_weights_that_were_taken_out_are_copies() -> None:
    network = network_of(["all"])
    domain_weights(network, 0)[NORM].zero_()
    assert domain_weights(network, 0)[NORM].all()


def test_a_frozen_network_has_neither_gradients_nor_dropout() -> None:
    network = _trainable(["all"])
    freeze(network)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())
    assert torch.equal(_logits(network), _logits(network))
    assert not _logits(network).requires_grad


def test_a_network_in_training_drops_out() -> None:
    network = _trainable(["all"])
    assert TINY_BACKBONE.dropout_rate > 0
    assert not torch.equal(_logits(network), _logits(network))


def test_gradients_reach_adapters_norms_and_the_visual_mapper_of_the_domain_alone() -> None:
    network = _trainable(["all", "larger"])
    targets = targets_for(network)
    targets[1, -2:] = IGNORED
    vip5_loss(network(batch_for(network, 1, "direct"), targets.clamp(min=0)), targets).backward()
    tuned = [module for module in network.modules() if isinstance(module, (RMSNormBank, VisualMapperBank))]
    assert len(tuned) == 2 * 2 + 2 * 3 + 2 + 1
    for module in tuned:
        for name, gradient in _gradients(module):
            if name != "norm_weight":  # this domain's mapper has no norm
                assert gradient[1].any(), name
            assert not gradient[0].any(), name
    adapters = [module for module in network.modules() if isinstance(module, AdapterBank)]
    assert len(adapters) == 2 * 2 + 2 * 3
    row = network.adapter_row(1, "direct")
    for adapter in adapters:
        for name, gradient in _gradients(adapter):
            assert gradient[row].any(), name
            assert not gradient[torch.arange(len(gradient)) != row].any(), name


def test_the_loss_divides_by_the_targets_length_twice_and_skips_padding() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 3], [4, IGNORED, IGNORED]])
    losses = -logits.log_softmax(-1)
    first = float(losses[0, 0, 1] + losses[0, 1, 2] + losses[0, 2, 3])
    assert float(vip5_loss(logits, targets)) == pytest.approx((first / 9 + float(losses[1, 0, 4])) / 2, abs=1e-6)


def _trainable(names: list[str]) -> Vip5Network:
    network = network_of(names)
    network.train().requires_grad_()
    return network


def _logits(network: Vip5Network) -> Tensor:
    logits: Tensor = network(batch_for(network, 0), targets_for(network))
    return logits


def _gradients(module: nn.Module) -> list[tuple[str, Tensor]]:
    gradients = [(name, parameter.grad) for name, parameter in module.named_parameters()]
    assert gradients
    return [(name, gradient) for name, gradient in gradients if gradient is not None]
