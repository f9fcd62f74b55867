"""What a reader skips, counted by rule, and what it has to say."""

from __future__ import annotations

from dataclasses import dataclass, field

_NUM_NAMED = 3


@dataclass
class Faults:
    """Broken lines and files by rule, such as "the line has no asin", with the first places of each rule."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)  # about sources that were joined

    def add(self, rule: str, place: str) -> None:
        """Count one fault; `place` is its location, such as `meta.json.gz:12`."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        named = self.places.setdefault(rule, [])
        if len(named) < _NUM_NAMED:
            named.append(place)

    def notice(self, line: str) -> None:
        """Keep a line for a person, such as how many items have an embedding."""
        self.notices.append(line)

    def descriptions(self, file: str = "") -> list[str]:
        """One sentence per rule, with the number of faults and the first places; of one file, if it is named."""
        return [
            f"{count:,} left out: {rule} ({', '.join(self.places[rule])}{', …' if count > _NUM_NAMED else ''})"
            for rule, count in self.counts.items()
            if self.places[rule][0].startswith(file)
        ]
