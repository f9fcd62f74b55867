"""What an evaluation says beside accuracy, from the same answers: exposure, and every metric by group."""

# Q questions

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.bundle.features import ItemFeatures
from model.evaluation.answers import RankedAnswer
from model.evaluation.exposure import (
    POPULARITY_BOUGHT,
    POPULARITY_DIFFERENCE,
    Exposure,
    Lists,
    Shelf,
    exposure,
    list_columns,
)
from model.evaluation.gaps import Group, Groups, Questions, group_gaps, largest_gap
from model.evaluation.groups import Grouping
from model.evaluation.held_out import HeldOut, Rows
from model.evaluation.metrics import Estimate, Measured, ranking_statistics
from model.evaluation.texts import ScoredText, have_ratings, measured_ratings, measured_texts
from model.planning.domain import ServedDomain

_NOT_COMPARED = (POPULARITY_BOUGHT, POPULARITY_DIFFERENCE)
"""What says as much about a group's purchases as about its answers."""


@dataclass(frozen=True, eq=False)
class BeyondAccuracy:
    """Measures lists of recommendations and texts, in total and by group where groups were asked for."""

    held_out: HeldOut
    domain: ServedDomain
    shelf: Shelf
    grouping: Grouping | None

    @classmethod
    def of(cls, held_out: HeldOut, domain: ServedDomain, features: ItemFeatures | None) -> BeyondAccuracy:
        """Raises InputError for groups that the data does not have."""
        options, grouping = held_out.options, None
        if options.groups is not None:
            grouping = Grouping.of(held_out.dataset, options.groups, options.groups_table)
        return cls(held_out, domain, Shelf.of(held_out, domain, features), grouping)

    def of_answers(self, answers: Sequence[RankedAnswer], ranks: NDArray[np.int64]) -> tuple[Exposure, Groups | None]:
        """Of the model's answers, and the ranks [Q] of their targets."""
        row_of = self.domain.catalog.row_of
        lists = [[row for row in map(row_of, answer.item_ids) if row is not None] for answer in answers]
        users = np.array([answer.user for answer in answers], dtype=np.int64)
        return self._measured(users, [np.array(rows, dtype=np.int64) for rows in lists], ranks)

    def of_lists(self, users: Rows, lists: Sequence[Rows], ranks: NDArray[np.int64]) -> tuple[Exposure, Groups | None]:
        """Of a baseline's lists of rows of the dataset, and the ranks [Q] of their targets."""
        return self._measured(users, [self.shelf.rows[rows] for rows in lists], ranks)

    def of_texts(self, texts: Sequence[ScoredText], items: Sequence[int]) -> Groups | None:
        """The metrics of explanations by group; `items` are rows of the dataset."""
        if self.grouping is None:
            return None
        codes = self.grouping.of_questions(np.array([text.user for text in texts]), np.array(items, dtype=np.int64))
        kinds = [Questions(measured_texts(texts), codes)]
        is_rated = have_ratings(texts)
        if is_rated.any():
            kinds.append(Questions(measured_ratings(texts), codes[is_rated]))
        return self._groups(codes, kinds, kinds, None)

    def _measured(
        self, users: Rows, ranked: Sequence[Rows], ranks: NDArray[np.int64]
    ) -> tuple[Exposure, Groups | None]:
        targets = np.array([self.held_out.target(user) for user in users.tolist()], dtype=np.int64)
        lists = self.shelf.lists(users, targets, ranked)
        whole = exposure(self.shelf, lists, self.held_out.options.seed)
        if self.grouping is None:
            return whole, None
        codes = self.grouping.of_questions(users, targets)
        accuracy = Questions(Measured.means(ranking_statistics(ranks), users), codes)
        compared = [accuracy]
        for name, column in list_columns(self.shelf, lists).items():
            is_known = ~np.isnan(column)
            if is_known.any() and name not in _NOT_COMPARED:
                means = Measured.means({name: column[is_known]}, users[is_known])
                compared.append(Questions(means, codes[is_known]))
        return whole, self._groups(codes, [accuracy], compared, lists)

    def _groups(
        self, codes: Rows, shown: Sequence[Questions], compared: Sequence[Questions], lists: Lists | None
    ) -> Groups:
        """Metrics by group; of rankings, those of exposure as well."""
        assert self.grouping is not None
        seed, values = self.held_out.options.seed, self.grouping.values
        groups = []
        for code in np.unique(codes[codes >= 0]).tolist():
            is_in = codes == code
            metrics: dict[str, Estimate] = {}
            for questions in shown:
                if (questions.codes == code).any():
                    metrics |= questions.of(code).estimates(seed)
            if lists is not None:
                metrics |= exposure(self.shelf, lists.among(is_in), seed).metrics
            users = np.unique(shown[0].of(code).users)
            groups.append(Group(values[code], len(users), int(is_in.sum()), metrics))
        gaps = group_gaps(compared, values, seed)
        return Groups(self.grouping.column, tuple(groups), int((codes < 0).sum()), gaps, largest_gap(gaps))
