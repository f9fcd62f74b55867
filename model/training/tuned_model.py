"""The network in training: which of its parameters change, and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _IncompatibleKeys

from model.network.banks import AdapterBank, BankIndex, RMSNormBank, RowIndex
from model.network.loss import IGNORED, token_losses, vip5_loss
from model.network.network import EncoderBatch, Vip5Network
from model.network.one_pass import ItemTokens, forward_in_one_pass
from model.network.stacks import DecoderBlock, EncoderBlock, FeedForward
from model.network.visual import VisualMapperBank
from model.training.config import RunFile

ENDS_EVERY = 8
"""Of how many targets one is asked for its `</s>` in training: soon certain, but logits of the whole vocabulary."""


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters, including the banks' padding where the layouts of domains differ."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total


class TunedModel(nn.Module):
    """Computes the loss of a batch. Its state holds trainable parameters only, which keeps checkpoints small."""

    def __init__(self, network: Vip5Network, file: RunFile) -> None:
        super().__init__()
        self.network = network
        self._loss = file.optimiser.loss
        if file.tune == "adapters":
            select_adapters(network, with_tables=file.tune_tables)
        else:
            network.requires_grad_(requires_grad=True)
        if file.optimiser.dropout_places == "residual":
            drop_in_residual_path(network)

    def forward(  # noqa: PLR0913, PLR0917  # the trainer passes a batch by these names
        self,
        input_ids: Tensor,
        whole_word_ids: Tensor,
        category_ids: Tensor,
        features: Tensor,
        targets: Tensor,
        domain: BankIndex,
        adapter: BankIndex,
    ) -> dict[str, Tensor]:
        """The loss of a batch that `Collator` made."""
        batch = EncoderBatch(input_ids, whole_word_ids, category_ids, features, RowIndex(domain, adapter))
        logits = self.network(batch, targets.clamp(min=0))
        if self._loss == "vip5":
            return {"loss": vip5_loss(logits, targets)}
        lengths = (targets != IGNORED).sum(1)
        return {"loss": (token_losses(logits, targets).sum(1) / lengths).mean()}

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]  # noqa: ANN401  # torch's own signature
        """The trainable parameters, each once."""
        return {name: tensor.detach() for name, tensor in self.named_parameters() if tensor.requires_grad}

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> _IncompatibleKeys:  # noqa: ANN401  # likewise
        """Load the trainable parameters; raises KeyError for a missing one. Frozen ones are loaded already."""
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                tensor.copy_(state_dict[name])
        return _IncompatibleKeys([], [])

    def counts(self) -> ParameterCounts:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.parameters()]
        return ParameterCounts(
            trainable=sum(size for size, is_trainable in sizes if is_trainable), total=sum(size for size, _ in sizes)
        )


class OnePassModel(TunedModel):
    """Computes the loss of all positions of some histories, of batches that `WindowCollator` made."""

    def __init__(self, network: Vip5Network, file: RunFile, items: Sequence[ItemTokens]) -> None:
        """`items` are the sizes of each domain's items in prompts."""
        super().__init__(network, file)
        self._items = tuple(items)
        self._forward = torch.compile(forward_in_one_pass) if file.optimiser.compile else forward_in_one_pass

    def forward(  # noqa: PLR0913, PLR0917  # as above
        self,
        input_ids: Tensor,
        whole_word_ids: Tensor,
        category_ids: Tensor,
        features: Tensor,
        targets: Tensor,
        domain: BankIndex,
        adapter: BankIndex,
    ) -> dict[str, Tensor]:
        """The mean loss of the targets [B, N, T] that are not ignored; in training that of `</s>` is estimated."""
        assert isinstance(domain, int)
        batch = EncoderBatch(input_ids, whole_word_ids, category_ids, features, RowIndex(domain, adapter))
        is_target = targets[:, :, 0] != IGNORED
        first = int(is_target.any(0).int().argmax())  # of windows of long histories, the first items are context
        states = self._forward(self.network, batch, targets.clamp(min=0), self._items[domain], first)
        length = targets.shape[2]
        loss = self._mean_loss(states[is_target[:, first:]], targets[is_target]) / length
        return {"loss": loss / length if self._loss == "vip5" else loss}

    def _mean_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of targets [M, T], whose tokens' losses are added, from states [M, T, D]."""
        every = ENDS_EVERY if self.training else 1
        said = self._cross_entropy(states[:, :-1], targets[:, :-1])
        return said * (targets.shape[1] - 1) + self._cross_entropy(states[::every, -1:], targets[::every, -1:])

    def _cross_entropy(self, states: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.network.logits(states).flatten(0, 1), targets.flatten())


def drop_in_residual_path(network: Vip5Network) -> None:
    """Drop out of prompts' embeddings, of what layers add to them and of the encoder's states, and nothing else."""
    network.decoder.dropout = 0.0
    for module in network.modules():
        if isinstance(module, FeedForward | EncoderBlock | DecoderBlock):
            module.dropout = 0.0


def select_adapters(network: Vip5Network, *, with_tables: bool) -> None:
    """Make adapters, layer norms and visual mappers trainable, and freeze everything else, as VIP5 does.

    The whole-word and category embeddings are trained only `with_tables`.
    """
    network.requires_grad_(requires_grad=False)
    for module in network.modules():
        if isinstance(module, AdapterBank | RMSNormBank | VisualMapperBank):
            module.requires_grad_(requires_grad=True)
    for table in (network.whole_word, network.category):
        if table is not None:
            table.requires_grad = with_tables
