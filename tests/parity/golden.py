"""The recorded runs of the original code, and a network that holds their weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from model.engine.plans import Plan
from model.network.banks import RowIndex
from model.network.config import BackboneConfig, DomainLayout
from model.network.network import EncoderBatch, Vip5Network
from model.network.weights import freeze, load_backbone, load_domain
from model.prompts.prompt import Prompt
from tests.plans import plan_of

NAMES = ("tiny-relu", "tiny-multi")
NUM_ITEMS = 11924

STATE_TOLERANCE = 5e-5
SCORE_TOLERANCE = 2e-5

_DIMENSIONS = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_heads",
    "num_layers",
    "num_decoder_layers",
    "feed_forward_proj",
)


class Tensors:
    """A safetensors file."""

    def __init__(self, path: Path) -> None:
        self._tensors = load_file(path)
        self.names = frozenset(self._tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]


@dataclass(frozen=True)
class Case:
    """One recorded prompt with everything that was recorded of it."""

    facts: dict[str, Any]
    tensors: Tensors

    @property
    def name(self) -> str:
        return str(self.facts["id"])

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[f"{self.name}/{name}"]

    def ids(self, name: str) -> NDArray[np.int64]:
        return self[name].long().numpy()

    @property
    def target_ids(self) -> list[int]:
        return [int(token) for token in self.ids("target_ids")]

    def plan(self) -> Plan:
        prompt = Prompt(
            input_ids=self.ids("input_ids"),
            whole_word_ids=self.ids("whole_word_ids"),
            category_ids=self.ids("category_ids"),
            image_items=(),
            num_tokens_untruncated=int(self.facts["n_tokens_untruncated"]),
        )
        return plan_of(prompt, self["vis_feats"].numpy(), self.facts["task"])


class Golden:
    """One of the two recorded models."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name
        self.common = folder / "common"

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.json")

    @cached_property
    def layout(self) -> DomainLayout:
        config = self.config
        return DomainLayout(
            bottleneck=config["d_model"] // config["reduction_factor"],
            cross_attention_adapter=config["add_adapter_cross_attn"],
            one_adapter_for_all_tasks=config["use_single_adapter"],
            visual_tokens=config["n_vis_tokens"],
            feature_dim=config["feat_dim"],
            visual_norm=config["use_vis_layer_norm"],
            whole_word_rows=1024,
            category_rows=16,
        )

    @cached_property
    def backbone(self) -> BackboneConfig:
        return BackboneConfig(**{name: self.config[name] for name in _DIMENSIONS})

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        weights: dict[str, torch.Tensor] = torch.load(self.folder / f"{self.name}.pth", weights_only=True)
        return weights

    @cached_property
    def network(self) -> Vip5Network:
        network = Vip5Network(self.backbone, [self.layout])
        load_backbone(network, self.weights)
        load_domain(network, 0, self.weights)
        freeze(network)
        return network

    @cached_property
    def cases(self) -> dict[str, Case]:
        tensors = self.tensors("cases")
        return {facts["id"]: Case(facts, tensors) for facts in self.json("cases.json")["cases"]}

    @cached_property
    def exact(self) -> Tensors:
        return self.tensors("exact")

    def ranked_cases(self) -> Iterator[tuple[Case, dict[str, list[Any]]]]:
        """The cases whose answer is an item, with the recorded rankings."""
        for name, rankings in self.json("exact.json").items():
            yield self.cases[name], rankings

    def json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return content

    def tensors(self, name: str) -> Tensors:
        return Tensors(self.folder / f"{name}.safetensors")

    def batch(self, case: Case) -> EncoderBatch:
        """One case as a batch of one row, built from the recorded ids."""
        rows = RowIndex(domain=0, adapter=self.network.adapter_row(0, case.facts["task"]))
        return EncoderBatch(
            input_ids=case["input_ids"].long().unsqueeze(0),
            whole_word_ids=case["whole_word_ids"].long().unsqueeze(0),
            category_ids=case["category_ids"].long().unsqueeze(0),
            features=case["vis_feats"].unsqueeze(0),
            rows=rows,
            is_padded=False,
        )


def largest_difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).abs().max())
