"""What a reader leaves out: counted by rule, the first few named."""

from __future__ import annotations

from dataclasses import dataclass, field

_NUM_NAMED = 3


@dataclass
class Faults:
    """Broken lines and files of a source. A rule is a phrase such as "is not JSON"; its first places are kept."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rule: str, place: str) -> None:
        """Count one fault; `place` says where it is, such as `meta.json.gz:12`."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        named = self.places.setdefault(rule, [])
        if len(named) < _NUM_NAMED:
            named.append(place)

    def descriptions(self) -> list[str]:
        """One sentence per rule, with the number of faults and the first few places."""
        return [
            f"{count:,} left out: {rule} ({', '.join(self.places[rule])}{', …' if count > _NUM_NAMED else ''})"
            for rule, count in self.counts.items()
        ]
