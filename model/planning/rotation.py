"""Rotation: items that a user was shown lately count less, and again as before once a time has passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shown:
    """An item that a user was shown, and when: seconds since 1970."""

    item_id: str
    at: float


@dataclass(frozen=True)
class Rotation:
    """How far shown items are lowered: by `factor` at first, by its square root after half of `fade_s`, then not."""

    factor: float
    fade_s: float
    now: float
    recently_shown: Sequence[Shown] = field(default_factory=tuple)

    def factors(self) -> Mapping[str, float]:
        """The factors of the items that are still lowered. The last time that an item was shown counts."""
        last = {each.item_id: each.at for each in sorted(self.recently_shown, key=lambda each: each.at)}
        ages = {item_id: max(0.0, self.now - at) for item_id, at in last.items()}
        return {
            item_id: self.factor ** (1 - age_s / self.fade_s) for item_id, age_s in ages.items() if age_s < self.fade_s
        }
