"""SASRec (Kang and McAuley, arXiv 1808.09781) by RecTools, fitted on training interactions only.

RecTools is an optional dependency, because it needs numpy below 2.
"""

# N items

from __future__ import annotations

import numpy as np
import torch
from pytorch_lightning import seed_everything
from rectools.models import SASRecModel

from model.evaluation.baselines import training_histories
from model.evaluation.held_out import HeldOut
from model.evaluation.interactions import interactions_of
from model.evaluation.metrics import Floats

SIZE = {"n_factors": 64, "n_blocks": 2, "n_heads": 2, "session_max_len": 50, "dropout_rate": 0.2}
FITTING = {"loss": "softmax", "lr": 1e-3, "batch_size": 128, "epochs": 20}
_USERS_AT_A_TIME = 128


class SelfAttention:
    """Scores items with a transformer over the user's history; items without training interactions get -inf."""

    def __init__(self, model: SASRecModel, held_out: HeldOut) -> None:
        self._model = model
        self._held_out = held_out
        self._scores: dict[int, Floats] = {}

    @classmethod
    def fit(cls, held_out: HeldOut) -> SelfAttention:
        """Fit to the training interactions of all users."""
        histories = training_histories(held_out.dataset)
        seed_everything(held_out.options.seed, verbose=False)
        model = SASRecModel(**SIZE, **FITTING, deterministic=True)
        model.fit(interactions_of(range(len(histories)), histories))
        torch.use_deterministic_algorithms(mode=False)  # the library leaves them on
        return cls(model, held_out)

    def scores(self, user: int, /) -> Floats:
        if user not in self._scores:
            self._scores = self._scores_from(user)
        return self._scores[user]

    def _scores_from(self, user: int) -> dict[int, Floats]:
        """Scores for this user and the users after it, [N] each."""
        users = self._held_out.users
        start = int(np.searchsorted(users, user))
        chunk = users[start : start + _USERS_AT_A_TIME].tolist()
        num_items = len(self._held_out.dataset.catalog)
        found = self._model.recommend(
            users=chunk,
            dataset=interactions_of(chunk, [self._held_out.history(each) for each in chunk]),
            k=num_items,
            filter_viewed=False,
            on_unsupported_targets="ignore",
        )
        scores = {each: np.full(num_items, -np.inf) for each in chunk}
        for each, rows in found.groupby("user_id"):
            scores[each][rows["item_id"].to_numpy()] = rows["score"].to_numpy()
        return scores
