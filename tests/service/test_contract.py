"""What others build on stays as it is: the OpenAPI documents, words aside, and the names and labels of the metrics.

A change that is meant goes into the recorded files with `python -m tests.service.test_contract`.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr

from service.http.app import create_app
from service.http.app_state import state_of
from service.observability.metrics import Metrics
from service.settings.settings import Settings

RECORDED = Path(__file__).parent / "contract"
WORDS = {"description", "summary", "title"}


def without_words(node: object, *, holds_names: bool = False) -> object:
    """The document without its prose; in `holds_names` (`properties`, say) each key is somebody's name."""
    if isinstance(node, list):
        return [without_words(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_words(value, holds_names=key in {"properties", "schemas", "paths"} and not holds_names)
        for key, value in node.items()
        if holds_names or key not in WORDS
    }


def openapi_documents(folder: Path) -> dict[str, object]:
    """Those of the public port and of the administrators', with everything on that can be; no bundle is loaded."""
    keys = folder / "keys"
    keys.write_text(json.dumps({"id": "contract", "sha256": "0" * 64}))
    settings = Settings(bundle=folder, api_keys_file=keys, admin_token=SecretStr("token-of-the-contract"), admin_port=0)
    app = create_app(settings)
    admin = state_of(app).admin_app
    assert admin is not None
    return {"public": without_words(app.openapi()), "admin": without_words(admin.openapi())}


def metric_families() -> dict[str, object]:
    """Type and labels of every family that the service defines."""
    registry = Metrics()._registry
    return {
        name: {"type": collector._type, "labels": list(collector._labelnames)}
        for name, collector in registry._names_to_collectors.items()
        if isinstance(collector, MetricWrapperBase)
    }


def recorded(name: str) -> object:
    return json.loads((RECORDED / name).read_text())


def test_the_openapi_documents_are_the_recorded_ones(tmp_path: Path) -> None:
    assert openapi_documents(tmp_path) == recorded("openapi.json")


def test_the_metrics_are_the_recorded_ones() -> None:
    assert metric_families() == recorded("metrics.json")


def main() -> None:
    RECORDED.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        documents = {"openapi.json": openapi_documents(Path(folder)), "metrics.json": metric_families()}
    for name, document in documents.items():
        (RECORDED / name).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
