"""The visual mapper, which turns an image embedding into visual tokens of the prompt (VIP5, §3.1)."""

# B rows, I images, F feature width, D model width, V visual tokens, W = V·D, C domains in the bank

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.network.banks import BankIndex, banked_linear, select
from model.network.config import DomainLayout


class VisualMapperBank(nn.Module):
    """RMSNorm(W2·tanh(W1·f + b1) + b2) for each domain; the norm is over all V·D values of an image."""

    def __init__(self, layouts: Sequence[DomainLayout], capacity: DomainLayout, d_model: int, eps: float) -> None:
        super().__init__()
        self.d_model = d_model
        self.eps = eps
        self.tokens = capacity.visual_tokens
        self.feature_dim = capacity.feature_dim
        num_domains, width = len(layouts), self.tokens * d_model
        hidden = width // 2
        self.hidden_weight = nn.Parameter(torch.zeros(num_domains, hidden, self.feature_dim))
        self.hidden_bias = nn.Parameter(torch.zeros(num_domains, hidden))
        self.output_weight = nn.Parameter(torch.zeros(num_domains, width, hidden))
        self.output_bias = nn.Parameter(torch.zeros(num_domains, width))
        self.norm_weight = nn.Parameter(torch.ones(num_domains, width))
        self.tokens_of: Tensor
        self.has_norm: Tensor
        tokens = torch.tensor([layout.visual_tokens for layout in layouts])
        self.register_buffer("tokens_of", tokens, persistent=False)
        self.register_buffer("has_norm", torch.tensor([layout.visual_norm for layout in layouts]), persistent=False)

    def set_layout(self, slot: int, layout: DomainLayout) -> None:
        self.tokens_of[slot] = layout.visual_tokens
        self.has_norm[slot] = layout.visual_norm

    def forward(self, features: Tensor, index: BankIndex) -> Tensor:
        """Features [B, I, F], padded with zeros beyond a domain's own width → [B, I, V, D].

        A domain with fewer than V tokens per image uses the first ones.
        """
        hidden = torch.tanh(banked_linear(features, self.hidden_weight, self.hidden_bias, index))
        values = banked_linear(hidden, self.output_weight, self.output_bias, index)
        mapped: Tensor = self._normalise(values, index).unflatten(-1, (self.tokens, self.d_model))
        return mapped

    def _normalise(self, values: Tensor, index: BankIndex) -> Tensor:
        # The mean is over the domain's own values; the padding is zero and not counted.
        width = _per_row(self.tokens_of, index) * self.d_model
        mean_square = values.float().square().sum(-1, keepdim=True) / width.clamp(min=1)
        weight = select(self.norm_weight, index)
        weight = weight if weight.dim() == 1 else weight.unsqueeze(1)
        normalised = (values.float() * torch.rsqrt(mean_square + self.eps)).to(values.dtype) * weight
        return torch.where(_per_row(self.has_norm, index), normalised, values)

    def place(self, x: Tensor, category_ids: Tensor, mapped: Tensor, index: BankIndex) -> Tensor:
        """Replace x [B, S, D] at the positions of visual tokens, in order, by mapped [B, I, V, D]."""
        tokens = _per_row(self.tokens_of, index)[..., 0].clamp(min=1)
        ordinal = (category_ids.cumsum(1) - 1).clamp(min=0)  # [B, S]
        slot = ordinal // tokens * self.tokens + ordinal % tokens
        flat = mapped.flatten(1, 2)  # [B, I·V, D]
        slot = slot.clamp(max=flat.shape[1] - 1)
        visual = flat.gather(1, slot.unsqueeze(-1).expand(-1, -1, self.d_model))
        return torch.where(category_ids.bool().unsqueeze(-1), visual, x)


def _per_row(values: Tensor, index: BankIndex) -> Tensor:
    """A value of each domain, [C], by row: [B, 1, 1], or [1, 1, 1] for a single domain."""
    return select(values, index).reshape(-1, 1, 1)
