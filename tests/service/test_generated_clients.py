"""Clients that generators make of the OpenAPI document call the service; linters find no error in it.

The programs come from npm and PyPI; where one is not installed, its test is skipped.
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.service.conftest import client_of

TYPESCRIPT = """
import type { components, paths } from "./api";
type Ask = paths["/recommend/sequential"]["post"]["requestBody"]["content"]["application/json"];
type Answer = paths["/recommend/sequential"]["post"]["responses"][200]["content"]["application/json"];
const ask: Ask = { domain: "toys", history: ["item-1"], k: 2, attribution: 1 };
declare const answer: Answer;
const first: components["schemas"]["RankedItem"] = answer.items[0];
export const shown: [Ask, string, number] = [ask, first.item_id, first.because?.[0].effect ?? first.score];
// @ts-expect-error  the domain is missing
export const wrong: Ask = { history: [] };
"""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def written(app: FastAPI, folder: Path, name: str = "openapi.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(app.openapi()))
    return path


def test_spectral_finds_nothing(settings: Settings, tmp_path: Path) -> None:
    spectral = program("spectral")
    (tmp_path / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    given = settings.model_copy(update={"admin_token": SecretStr("x" * 16), "admin_port": 0})
    app = create_app(given)
    admin_app = state_of(app).admin_app
    assert admin_app is not None
    for each in (written(app, tmp_path), written(admin_app, tmp_path, "admin.json")):
        out = run(
            spectral, "lint", each, "--ruleset", tmp_path / ".spectral.yaml", "--fail-severity=warn", cwd=tmp_path
        )
        assert "warning" not in out


async def test_a_generated_python_client_calls_the_service(
    app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = program("openapi-python-client")
    run(
        generator,
        "generate",
        "--path",
        written(app, tmp_path),
        "--output-path",
        tmp_path / "out",
        "--meta=none",
        cwd=tmp_path,
    )
    (tmp_path / "out").rename(tmp_path / "generated_vip5")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        generated: Any = importlib.import_module("generated_vip5")
        models: Any = importlib.import_module("generated_vip5.models")
        call: Any = importlib.import_module("generated_vip5.api.recommend.recommend_sequential")
        async with client_of(app):
            transport = httpx.ASGITransport(app)
            client = generated.Client(base_url="http://test")
            client.set_async_httpx_client(httpx.AsyncClient(transport=transport, base_url="http://test"))
            body = models.SequentialRequest(domain="toys", history=["item-1"], k=2, attribution=1)
            answer = await call.asyncio(client=client, body=body)
            refused = await call.asyncio(client=client, body=models.SequentialRequest(domain="books", history=["x"]))
    finally:
        for name in [name for name in sys.modules if name.startswith("generated_vip5")]:
            del sys.modules[name]

    assert len(answer.items) == 2
    assert answer.items[0].because[0].item_id == "item-1"
    assert refused.code == "unknown_domain"


def test_generated_types_of_typescript_fit_a_request(app: FastAPI, tmp_path: Path) -> None:
    generator, compiler = program("openapi-typescript"), program("tsc")
    run(generator, written(app, tmp_path), "-o", tmp_path / "api.ts", "--default-non-nullable=false", cwd=tmp_path)
    (tmp_path / "call.ts").write_text(TYPESCRIPT)
    run(compiler, "--noEmit", "--strict", "--skipLibCheck", "call.ts", cwd=tmp_path)
