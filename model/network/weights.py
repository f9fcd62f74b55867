"""Loading and saving the network's parameters under the names of checkpoints (Hugging Face's T5 and VIP5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.errors import BundleError
from model.network.config import BackboneConfig, DomainLayout
from model.network.network import Vip5Network
from model.network.stacks import Branch, DecoderBlock, EncoderBlock

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Entry:
    """The name of a checkpoint's tensor, and the view of a parameter that it is loaded into."""

    name: str
    target: Tensor


def build_network(
    config: BackboneConfig, layouts: Sequence[DomainLayout], backbone: Weights, adapters: Sequence[Weights]
) -> Vip5Network:
    """A frozen network of a backbone and its domains; layout i and adapter i are for slot i.

    Raises BundleError for a missing tensor or a wrong shape.
    """
    network = Vip5Network(config, layouts)
    load_backbone(network, backbone)
    for slot, adapter in enumerate(adapters):
        load_domain(network, slot, {**backbone, **adapter})
    freeze(network)
    return network


def load_backbone(network: Vip5Network, weights: Weights) -> None:
    """Load the backbone's tensors. Raises BundleError for a missing tensor or a wrong shape."""
    _fill(_backbone_entries(network), weights)


def load_domain(network: Vip5Network, slot: int, weights: Weights) -> None:
    """Load one domain's tensors into its slot of the banks; a smaller layout than the bank's stays padded with zeros.

    `weights` has the domain's tensors over the backbone's: a domain without layer norms uses the T5's.
    """
    _fill(_domain_entries(network, slot), weights)


def backbone_weights(network: Vip5Network) -> dict[str, Tensor]:
    """The backbone's tensors, under the names of Hugging Face's T5."""
    return {entry.name: entry.target.detach().clone() for entry in _backbone_entries(network)}


def domain_weights(network: Vip5Network, slot: int) -> dict[str, Tensor]:
    """The domain's tensors, under the names of VIP5's checkpoints."""
    return {entry.name: entry.target.detach().clone() for entry in _domain_entries(network, slot)}


@torch.no_grad()
def _fill(entries: Iterator[_Entry], weights: Weights) -> None:
    for entry in entries:
        if entry.name not in weights:
            raise BundleError(
                f"the tensor {entry.name} of shape {list(entry.target.shape)} is missing; check the checkpoint"
            )
        tensor = weights[entry.name]
        if tensor.shape != entry.target.shape:
            raise BundleError(
                f"the tensor {entry.name} has shape {list(tensor.shape)}, but by the configuration it is "
                f"{list(entry.target.shape)}; check that both describe the same model"
            )
        entry.target.copy_(tensor)


def _backbone_entries(network: Vip5Network) -> Iterator[_Entry]:
    yield _Entry("shared.weight", network.shared)
    if not network.config.tie_word_embeddings:
        yield _Entry("lm_head.weight", network.head.weight)
    for stack, module in (("encoder", network.encoder), ("decoder", network.decoder)):
        first = f"{stack}.block.0.layer.0.SelfAttention"
        yield _Entry(f"{first}.relative_attention_bias.weight", module.positions.table)
    for prefix, block in _blocks(network):
        yield from _split(f"{prefix}.0.SelfAttention", "qkv", block.attention.qkv.weight)
        yield _Entry(f"{prefix}.0.SelfAttention.o.weight", block.attention.o.weight)
        if isinstance(block, DecoderBlock):
            yield _Entry(f"{prefix}.1.EncDecAttention.q.weight", block.cross.q.weight)
            yield from _split(f"{prefix}.1.EncDecAttention", "kv", block.cross.kv.weight)
            yield _Entry(f"{prefix}.1.EncDecAttention.o.weight", block.cross.o.weight)
        dense = f"{prefix}.{_last_layer(block)}.DenseReluDense"
        if block.feed_forward.is_gated:
            for half, part in enumerate(block.feed_forward.wi.weight.chunk(2)):
                yield _Entry(f"{dense}.wi_{half}.weight", part)
        else:
            yield _Entry(f"{dense}.wi.weight", block.feed_forward.wi.weight)
        yield _Entry(f"{dense}.wo.weight", block.feed_forward.wo.weight)


def _blocks(network: Vip5Network) -> Iterator[tuple[str, EncoderBlock | DecoderBlock]]:
    """All blocks with the prefix of their names."""
    yield from ((f"encoder.block.{number}.layer", block) for number, block in enumerate(network.encoder.layers))
    yield from ((f"decoder.block.{number}.layer", block) for number, block in enumerate(network.decoder.layers))


def _split(prefix: str, letters: str, fused: Tensor) -> Iterator[_Entry]:
    for letter, part in zip(letters, fused.chunk(len(letters)), strict=True):
        yield _Entry(f"{prefix}.{letter}.weight", part)


def _domain_entries(network: Vip5Network, slot: int) -> Iterator[_Entry]:
    layout = network.layouts[slot]
    for prefix, block in _blocks(network):
        yield from _branch_entries(network, slot, f"{prefix}.0", "attn_adapter", block.attention_branch)
        if isinstance(block, DecoderBlock):
            yield from _branch_entries(network, slot, f"{prefix}.1", "enc_attn_adapter", block.cross_branch)
        last = f"{prefix}.{_last_layer(block)}"
        yield from _branch_entries(network, slot, last, "ff_adapter", block.feed_forward_branch)
    yield _Entry("encoder.final_layer_norm.weight", network.encoder.final_norm.weight[slot])
    yield _Entry("decoder.final_layer_norm.weight", network.decoder.final_norm.weight[slot])
    if network.whole_word is not None and layout.whole_word_rows:
        table = network.whole_word[slot, : layout.whole_word_rows]
        yield _Entry("encoder.whole_word_embeddings.weight", table)
    if network.category is not None and layout.category_rows:
        yield _Entry("encoder.category_embeddings.weight", network.category[slot, : layout.category_rows])
    yield from _visual_entries(network, slot)


def _branch_entries(network: Vip5Network, slot: int, prefix: str, adapter: str, branch: Branch) -> Iterator[_Entry]:
    layout = network.layouts[slot]
    yield _Entry(f"{prefix}.layer_norm.weight", branch.norm.weight[slot])
    is_cross = adapter == "enc_attn_adapter"
    if branch.adapter is None or not layout.bottleneck or (is_cross and not layout.cross_attention_adapter):
        return
    bank, width = branch.adapter, layout.bottleneck
    for task in layout.adapter_tasks:
        row = network.adapter_row(slot, task)
        name = f"{prefix}.{adapter}.adapters.{task}"
        yield _Entry(f"{name}.down_sampler.weight", bank.down_weight[row, :width])
        yield _Entry(f"{name}.down_sampler.bias", bank.down_bias[row, :width])
        yield _Entry(f"{name}.up_sampler.weight", bank.up_weight[row, :, :width])
        yield _Entry(f"{name}.up_sampler.bias", bank.up_bias[row])


def _visual_entries(network: Vip5Network, slot: int) -> Iterator[_Entry]:
    layout, bank = network.layouts[slot], network.visual
    if bank is None or not layout.visual_tokens:
        return
    width = layout.visual_tokens * network.config.d_model
    hidden = width // 2
    prefix = "encoder.visual_embedding.feat_embedding"
    yield _Entry(f"{prefix}.0.model.0.weight", bank.hidden_weight[slot, :hidden, : layout.feature_dim])
    yield _Entry(f"{prefix}.0.model.0.bias", bank.hidden_bias[slot, :hidden])
    yield _Entry(f"{prefix}.0.model.2.weight", bank.output_weight[slot, :width, :hidden])
    yield _Entry(f"{prefix}.0.model.2.bias", bank.output_bias[slot, :width])
    if layout.visual_norm:
        yield _Entry(f"{prefix}.1.weight", bank.norm_weight[slot, :width])


def _last_layer(block: EncoderBlock | DecoderBlock) -> int:
    return 2 if isinstance(block, DecoderBlock) else 1


def freeze(network: nn.Module) -> nn.Module:
    """Prepare a network for serving: no dropout, no gradients."""
    return network.eval().requires_grad_(requires_grad=False)
