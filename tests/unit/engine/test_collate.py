from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from model.bundle.bundle import open_bundle
from model.engine.collate import collate
from model.engine.plans import RankingPlan
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from tests.tiny import tiny_bundle


def test_images_without_features_read_zeros(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path, num_items=20))
    network = bundle.network()
    domain = ServedDomain.of(0, bundle.domains["toys"], bundle.tokenizer, bundle.hash)
    plan = plan_sequential(domain, OfflineSequential(history=("item-1", "item-2", "item-3")))
    assert isinstance(plan, RankingPlan)
    zeros = np.zeros((3, domain.spec.layout.feature_dim), dtype=np.float32)
    first_only = zeros[:1] + 1
    states = {}
    for name, features in (
        ("all", zeros),
        ("none", zeros[:0]),
        ("first and zeros", np.concatenate([first_only, zeros[1:]])),
        ("first", first_only),
    ):
        batch = collate([replace(plan, features=(features,))], network, torch.device("cpu"))
        states[name] = network.encode(batch)[0]
    assert torch.equal(states["none"], states["all"])
    assert torch.equal(states["first"], states["first and zeros"])
    assert not torch.equal(states["first"], states["none"])
