"""What a dataset's items became when they were given codes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SemanticReport:
    """What became of the items."""

    sizes: tuple[int, ...]
    num_last: int
    num_items: int
    num_trained: int
    num_paths: int
    largest_path: int  # items on it
    used_codes: tuple[int, ...]  # of each level
    held_out_on_seen: float | None
    """Share of a held-out tenth of trained items whose path is one of the others'; None for fewer than 20 items."""
    num_moved: int
    """Items that are not trained on and not on the path of their own codes, because no trained item is on it."""
    num_unknown: int
    """Items that nothing is known of: no embedding, title or purchase with a weight. They are on the middle path."""
    correlations: tuple[float, ...]
    """Of consecutive purchases, in each of the shared directions."""

    def lines(self) -> list[str]:
        """What people should know, a line each."""
        sizes, used = "x".join(map(str, self.sizes)), ", ".join(map(str, self.used_codes))
        first = (
            f"{self.num_paths:,} paths of {sizes} codes ({used} of them used), up to {self.largest_path:,} items on "
            f"one, {self.num_last:,} last codes; {self.num_trained:,} of {self.num_items:,} items are trained on"
        )
        lines = [first]
        if self.correlations:
            shown = " ".join(f"{value:.2f}" for value in self.correlations)
            lines.append(f"correlations of consecutive purchases in the shared directions: {shown}")
        if self.held_out_on_seen is not None:
            lines.append(f"{self.held_out_on_seen:.1%} of a held-out tenth of the items are on paths of the others")
        if self.num_moved:
            lines.append(f"{self.num_moved:,} items that are not trained on moved to the nearest trained path")
        if self.num_unknown:
            lines.append(f"{self.num_unknown:,} items have nothing that tells their codes, and share the middle path")
        return lines
