"""The same task with transformers only: a T5, a trie of dicts, and `generate`."""

# S prompt tokens, I images, D width

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

from model.bundle.bundle import Bundle
from model.bundle.shapes import CATEGORY, SHARED, VISUAL, WHOLE_WORD, adapter_places
from model.engine.plans import Plan
from model.network.config import BackboneConfig, DomainLayout

TokenTrie: TypeAlias = dict[int, "TokenTrie"]
Tensors: TypeAlias = Mapping[str, Tensor]

_EOS = 1
_MAX_NEW_TOKENS = 8  # longer than any Toys identifier with `</s>`


@dataclass(frozen=True)
class Found:
    """A generated identifier, without start token, `</s>` and padding, and its log-probability."""

    token_ids: tuple[int, ...]
    score: float


def build_trie(identifiers: Iterable[Iterable[int]]) -> TokenTrie:
    """A dict per prefix; every identifier ends in `</s>`."""
    root: TokenTrie = {}
    for identifier in identifiers:
        node = root
        for token in identifier:
            node = node.setdefault(token, {})
        node[_EOS] = {}
    return root


def plain_t5(bundle: Bundle, domain: str) -> T5ForConditionalGeneration:
    """A T5 with the bundle's weights, without adapters, images and whole-word embeddings."""
    config = bundle.backbone.config
    model = T5ForConditionalGeneration(t5_config(config))
    tensors = {**bundle.backbone.weights, **bundle.domains[domain].adapter}
    own = {name: tensors[name] for name in model.state_dict() if name in tensors}
    missing, _ = model.load_state_dict(own, strict=False)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    assert set(missing) <= tied, f"{missing} are not in the bundle"
    model.train(mode=False)
    return model


class Vip5InTransformers:
    """VIP5 on transformers' T5: image tokens as input embeddings, adapters as hooks on the sub-layers."""

    def __init__(self, bundle: Bundle, domain: str) -> None:
        files = bundle.domains[domain]
        self.model = plain_t5(bundle, domain)
        self._tensors: Tensors = {**bundle.backbone.weights, **files.adapter}
        self._layout: DomainLayout = files.spec.layout
        for place in adapter_places(bundle.backbone.config, self._layout):
            self._hook(place)

    def embed(self, plan: Plan) -> Tensor:
        """Input embeddings of the encoder, [1, S, D]."""
        tensors = self._tensors
        is_image = torch.from_numpy(plan.prompt.category_ids) == 1
        embedded = tensors[SHARED][torch.from_numpy(plan.prompt.input_ids)]
        visual = _visual_tokens(tensors, torch.from_numpy(plan.features[0])).flatten(0, 1)
        embedded[is_image] = visual.view(-1, embedded.shape[1])[: int(is_image.sum())]
        embedded += tensors[WHOLE_WORD][torch.from_numpy(plan.prompt.whole_word_ids)]
        embedded += tensors[CATEGORY][torch.from_numpy(plan.prompt.category_ids)]
        return embedded[None]

    def _hook(self, place: str) -> None:
        layer, adapter = place.rsplit(".", 1)
        sublayer = {
            "attn_adapter": "SelfAttention",
            "enc_attn_adapter": "EncDecAttention",
            "ff_adapter": "DenseReluDense",
        }
        prefix = f"{place}.adapters.sequential"
        down = (self._tensors[f"{prefix}.down_sampler.weight"], self._tensors[f"{prefix}.down_sampler.bias"])
        up = (self._tensors[f"{prefix}.up_sampler.weight"], self._tensors[f"{prefix}.up_sampler.bias"])

        def adapt(
            _module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]
        ) -> Tensor | tuple[Tensor, ...]:
            states = output if isinstance(output, Tensor) else output[0]
            adapted = states + F.linear(F.gelu(F.linear(states, *down), approximate="tanh"), *up)
            return adapted if isinstance(output, Tensor) else (adapted, *output[1:])

        self.model.get_submodule(f"{layer}.{sublayer[adapter]}").register_forward_hook(adapt)


def generate(
    model: T5ForConditionalGeneration, prompt: Mapping[str, Tensor], trie: TokenTrie, num_beams: int
) -> list[Found]:
    """The best `num_beams` sequences in the trie."""

    def allowed(_batch: int, prefix: Tensor) -> list[int]:
        node = trie
        for token in prefix.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [_EOS]

    found = cast("Any", model).generate(  # no overload accepts a prompt as a mapping
        **prompt,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=_MAX_NEW_TOKENS,
        early_stopping=False,
        length_penalty=0.0,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows, scores = found.sequences.tolist(), found.sequences_scores.tolist()
    return [
        Found(tuple(token for token in row if token > _EOS), score) for row, score in zip(rows, scores, strict=True)
    ]


def _visual_tokens(tensors: Tensors, features: Tensor) -> Tensor:
    """Visual tokens [I, n * D] of image features [I, F] (VIP5's mapper: two layers, then one norm over all tokens)."""
    hidden = F.linear(features, tensors[f"{VISUAL}.0.model.0.weight"], tensors[f"{VISUAL}.0.model.0.bias"]).tanh()
    mapped = F.linear(hidden, tensors[f"{VISUAL}.0.model.2.weight"], tensors[f"{VISUAL}.0.model.2.bias"])
    return tensors[f"{VISUAL}.1.weight"] * mapped * (mapped.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()


def t5_config(config: BackboneConfig) -> T5Config:
    options = T5Config(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        d_kv=config.d_kv,
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        feed_forward_proj=config.feed_forward_proj,
    )
    options.decoder_start_token_id = 0
    return options
