"""docs/api.md names every route, field, code and setting that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from model.degradation import DegradationKind
from model.planning.runtime import Runtime
from service.http.app import create_app
from service.problem_documents import STATUSES, code_of
from service.schemas.explanation import ExplanationAnswer, ExplanationRequest
from service.schemas.ranking import DirectRequest, RankingAnswer, SequentialRequest, TimingsBody
from service.settings.fields import PREFIX
from service.settings.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "model", [SequentialRequest, DirectRequest, ExplanationRequest, RankingAnswer, ExplanationAnswer, TimingsBody]
)
def test_every_field_is_documented(
    model: type[
        SequentialRequest | DirectRequest | ExplanationRequest | RankingAnswer | ExplanationAnswer | TimingsBody
    ],
) -> None:
    missing = [name for name in model.model_fields if f"`{name}`" not in PAGE and f'"{name}"' not in PAGE]

    assert not missing


def test_every_code_is_documented_with_its_status() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for kind, status in STATUSES.items():
        code = code_of(kind("x")) if kind.__module__.startswith(("service", "model")) else "invalid_input"
        if status.status != 499 and kind is not Exception:
            assert any(f"| {status.status} |" in row and f"`{code}`" in row for row in rows), code


def test_every_degradation_is_documented() -> None:
    assert not [kind for kind in DegradationKind if f"`{kind}`" not in PAGE]


def test_every_setting_is_documented() -> None:
    assert not [name for name in Settings.model_fields if f"`{PREFIX}{name.upper()}`" not in PAGE]


def test_every_path_is_documented(settings: Settings, runtime: Runtime) -> None:
    app = create_app(settings.model_copy(update={"admin_token": SecretStr("x" * 16)}), lambda _: runtime)
    assert "/admin/drain" in app.openapi()["paths"]
    for path in app.openapi()["paths"]:
        assert path.replace("/domains/{name}/users", "…/users") in PAGE
