"""Histories in RecTools' format. Uses nothing else of this project, for it also runs in an environment without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rectools.dataset import Dataset


def interactions_of(users: Sequence[int], histories: Sequence[NDArray[np.int64]]) -> Dataset:
    """Each user's items, oldest first; positions serve as timestamps."""
    lengths = [len(history) for history in histories]
    places = np.concatenate([np.arange(length) for length in lengths])
    table = {
        "user_id": np.repeat(users, lengths),
        "item_id": np.concatenate(histories),
        "weight": np.ones(len(places)),
        "datetime": pd.to_datetime(places, unit="s"),
    }
    return Dataset.construct(pd.DataFrame(table))
