"""deploy/kubernetes agrees with the image and the settings."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from service.http.routes import health
from service.settings import PREFIX, Settings
from tests.unit.deploy.containers import ROOT, of_stage

FILE = ROOT / "deploy" / "kubernetes" / "vip5.yml"
RESOURCES: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(FILE.read_text())}
POD: dict[str, Any] = RESOURCES["Deployment"]["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
VALUES: dict[str, str] = {each["name"]: each.get("value", "a-secret-of-16-or-more") for each in CONTAINER["env"]}


def test_every_variable_is_a_setting_and_together_they_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VALUES.keys() <= {PREFIX + name.upper() for name in Settings.model_fields}
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)

    settings = Settings()  # type: ignore[call-arg]  # from the variables
    assert settings.admin_port == {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}["admin"]
    assert settings.admin_host == "0.0.0.0", "Prometheus is outside of the pod"
    assert settings.port == {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}["http"]


def test_secrets_are_not_written_down() -> None:
    given = {each["name"]: each for each in CONTAINER["env"]}

    for name in ("VIP5_REDIS_PASSWORD", "VIP5_ADMIN_TOKEN"):
        assert "secretKeyRef" in given[name]["valueFrom"]


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_asks_what_there_is(probe: str) -> None:
    asked = CONTAINER[probe]["httpGet"]

    assert asked["path"] in {getattr(route, "path", "") for route in health.router.routes}
    assert asked["port"] in {port["name"] for port in CONTAINER["ports"]}


def test_a_pod_has_the_time_to_drain() -> None:
    (_, wait_s) = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]

    assert POD["terminationGracePeriodSeconds"] > float(wait_s) + float(VALUES["VIP5_DRAIN_S"])


def test_a_pod_runs_as_the_image_does_and_may_write_to_tmp_only() -> None:
    (user,) = [each.value for each in of_stage("cpu") if each.name == "USER"]
    context, pod = CONTAINER["securityContext"], POD["securityContext"]

    assert user == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    assert pod["runAsNonRoot"]
    assert context["readOnlyRootFilesystem"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert [each["mountPath"] for each in CONTAINER["volumeMounts"] if not each.get("readOnly")] == ["/tmp"]
    assert {each["name"] for each in CONTAINER["volumeMounts"]} == {each["name"] for each in POD["volumes"]}


def test_what_is_selected_is_what_there_is() -> None:
    labels = RESOURCES["Deployment"]["spec"]["template"]["metadata"]["labels"]

    assert RESOURCES["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert RESOURCES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert RESOURCES["Service"]["spec"]["selector"] == labels
    assert RESOURCES["Service"]["spec"]["ports"][0]["targetPort"] == "http"
