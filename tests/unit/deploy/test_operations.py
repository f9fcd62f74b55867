"""docs/operations.md agrees with the alerts, the dashboard and the settings; links of all pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.grafana.dashboard import ROWS
from service.settings.fields import PREFIX
from service.settings.settings import SECRETS, Settings
from tests.pages import PAGES, ROOT, name_of
from tests.unit.deploy.test_rules import ALERTS

PAGE = ROOT / "docs" / "operations.md"
TEXT = PAGE.read_text(encoding="utf-8")
OF_COMPOSE = {"VIP5_BUNDLES", "VIP5_BUNDLE_NAME"}
OF_KUBERNETES = {"VIP5_SERVICE_HOST"}


def anchors_of(page: Path) -> set[str]:
    """As the pages of a repository make them of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sections_below(heading: str) -> dict[str, str]:
    """Texts of the sections one level below, by their headings."""
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    pieces = re.split(r"^### (.*)\n", part, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_leads_to_a_section_that_says_what_to_do(name: str) -> None:
    page, _, anchor = ALERTS[name]["annotations"]["runbook"].partition("#")

    assert ROOT / page == PAGE
    texts = {heading.lower().replace(" ", "-"): text for heading, text in sections_below("Alerts").items()}
    assert len(texts[anchor].split()) > 25


def test_no_section_is_about_an_alert_that_does_not_exist() -> None:
    assert {heading.replace(" ", "").lower() for heading in sections_below("Alerts")} == {
        each.lower() for each in ALERTS
    }


def test_every_row_of_the_dashboard_is_explained() -> None:
    assert re.findall(r"^\| \[(.*?)\]\(pictures/", TEXT, re.MULTILINE) == [row.title for row in ROWS]


def test_every_panel_that_is_spoken_of_exists() -> None:
    panels = {panel.title for row in ROWS for panel in row.panels} | {row.title for row in ROWS}
    spoken_of = re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", " ".join(TEXT.split()))

    assert {name for name in spoken_of if "→" not in name} <= panels
    assert spoken_of


def test_every_variable_that_is_named_is_a_setting() -> None:
    named = set(re.findall(r"VIP5_[A-Z_]+", TEXT))

    secrets = {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    assert named <= {PREFIX + name.upper() for name in Settings.model_fields} | secrets | OF_COMPOSE | OF_KUBERNETES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)

    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link
