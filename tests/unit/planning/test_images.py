"""Features of images are held once per item, and only for images that the model reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.bundle.layout import PromptDefaults
from model.engine.plans import ScoringPlan, SharedFeatures
from model.planning.images import image_rows, with_features
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from tests.tiny import TINY_LAYOUT
from tests.unit.planning.domains import item, row, tiny_domain

ASKED = OfflineSequential(
    history=tuple(item(number) for number in range(1, 10)),
    include_items=tuple(item(number) for number in range(11, 20)),
    exclude_history=False,
    template="A-7",
)


def test_prompts_share_the_rows_of_their_features() -> None:
    domain = tiny_domain()
    plan = plan_sequential(domain, ASKED)
    rows = image_rows(plan, domain)
    features = np.arange(len(rows), dtype=np.float32)[:, None].repeat(TINY_LAYOUT.feature_dim, axis=1)

    given = with_features(plan, domain, features, np.ones(len(rows), dtype=np.bool_))

    assert isinstance(given, ScoringPlan)
    assert isinstance(given.features, SharedFeatures)
    assert given.features.rows is features
    for prompt, own in zip(given.prompts, given.features, strict=True):
        assert [rows[int(each)] for each in own[:, 0]] == list(prompt.image_items)
    part = given.first(4)
    assert isinstance(part.features, SharedFeatures)
    assert part.features.rows is features
    assert len(part.features) == 4


def test_images_that_were_cut_off_are_neither_fetched_nor_missing() -> None:
    domain = tiny_domain(prompts=PromptDefaults(max_tokens=40))
    plan = plan_sequential(domain, replace(ASKED, template=None, include_items=None))
    visual_tokens = TINY_LAYOUT.visual_tokens
    shown = -(-int(plan.prompt.category_ids.sum()) // visual_tokens)

    assert 0 < shown < 9
    assert image_rows(plan, domain) == [row(number) for number in range(1, shown + 1)]
    assert plan.prompt.image_items == tuple(row(number) for number in range(1, 10))
    missing = with_features(
        plan, domain, np.zeros((shown, TINY_LAYOUT.feature_dim), dtype=np.float32), np.zeros(shown, dtype=np.bool_)
    )
    assert f"{shown} of {shown} items" in missing.degraded[-1].detail
