"""The project's Markdown pages."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", ".github/*.md", "docs/**/*.md", "demo/*.md", "benchmarks/*.md", "examples/*/*.md")
"""They leave out what commands make, such as `node_modules`."""
PAGES = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]


def name_of(page: Path) -> str:
    """Its path from the repository's root."""
    return str(page.relative_to(ROOT))
