"""Values in Redis that were refused: each edition is logged once, and items are reported until they can be read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

from feature_cache.remote.layout import Edition
from feature_cache.store import FeatureSpace

logger = logging.getLogger(__name__)

MAX_TRACKED = 1_000
MAX_NAMED = 3


class RefusedValues:
    """Mutable."""

    def __init__(self) -> None:
        self._of: dict[FeatureSpace, tuple[str, set[str]]] = {}  # the version and its refused items

    def note(self, edition: Edition, refused: Iterable[str], read: Iterable[str]) -> None:
        """Items whose values were refused, and items whose values were read."""
        version, known = self._of.get(edition.space, ("", set()))
        if version != edition.version:
            known = set()
        is_new = not known
        known.difference_update(read)
        known.update(islice((each for each in refused if each not in known), MAX_TRACKED - len(known)))
        self._of[edition.space] = (edition.version, known)
        if known and is_new:
            logger.error("feature_values_refused", extra={"reason": problem_of(edition, known)})

    def problem(self, edition: Edition) -> str:
        """For an operator; empty if all values that were read last are sound."""
        version, known = self._of.get(edition.space, ("", set()))
        return problem_of(edition, known) if known and version == edition.version else ""


def problem_of(edition: Edition, item_ids: set[str]) -> str:
    named = ", ".join(map(repr, sorted(item_ids)[:MAX_NAMED])) + (", …" if len(item_ids) > MAX_NAMED else "")
    number = f"{len(item_ids)} or more" if len(item_ids) >= MAX_TRACKED else f"{len(item_ids)}"
    rule = "that are damaged or of another encoder"
    if edition.signing is not None:
        rule = "that are damaged, of another encoder, or not signed for them with VIP5_SIGNING_SECRET"
    return (
        f"Redis holds values of {number} items of {edition.space.domain} {rule}, and count as missing: {named}; "
        "load the embeddings again with `vip5 features load`"
    )
