"""A domain's own templates in domain.json: kept, checked, and absent where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.bundle.documents import read_domain_spec, write_domain_spec
from model.bundle.layout import DomainSpec
from model.errors import BundleError
from model.prompts.templates import Template
from tests.tiny import TINY_LAYOUT

ITEMS = Template("items", "sequential", "item", "{history}", separator="", most_items=3)
PLAIN = DomainSpec("toys", replace(TINY_LAYOUT, visual_tokens=0, feature_dim=0), "0" * 64)


def written(folder: Path, spec: DomainSpec) -> Path:
    write_domain_spec(folder / "domain.json", spec)
    return folder / "domain.json"


def test_templates_are_read_as_they_were_written(tmp_path: Path) -> None:
    spec = replace(PLAIN, templates=(ITEMS, Template("other", "sequential", "item", "next ? {history}")))
    assert read_domain_spec(written(tmp_path, spec), "toys") == spec


def test_a_domain_without_templates_has_the_file_that_it_always_had(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    assert "templates" not in json.loads(path.read_text())
    assert read_domain_spec(path, "toys") == PLAIN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "next ?"}, r"templates: items: the text 'next \?' lacks \{history\}"),
        ({"task": "ranking"}, r"templates\[0\]: task is \"ranking\"; it must be one of sequential"),
        ({"most_items": "3"}, r"templates\[0\]: most_items is \"3\"; it must be of type int"),
    ],
)
def test_a_faulty_template_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = written(tmp_path, replace(PLAIN, templates=(ITEMS,)))
    document = json.loads(path.read_text())
    document["templates"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match=message):
        read_domain_spec(path, "toys")


def test_templates_that_are_no_list_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"templates": "items"}))
    with pytest.raises(BundleError, match=r"templates is \"items\"; it must be of type"):
        read_domain_spec(path, "toys")
