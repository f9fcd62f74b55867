"""deploy/kubernetes agrees with the image, the settings, the metrics and Kubernetes' schemas."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes import rules
from service.http.routes import health
from service.settings.fields import PREFIX
from service.settings.settings import Settings
from tests.unit.deploy.containers import ROOT, compose, of_stage
from tests.unit.deploy.manifests import FOLDER, OVERLAYS, Manifest, overlay, overlay_with
from tests.unit.deploy.test_dashboard import metric_names, names_in

WORKLOADS = [("Deployment", "vip5"), ("StatefulSet", "redis")]
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds of operators, of which Kubernetes' own schemas know nothing."""


@pytest.fixture(params=OVERLAYS)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return overlay(request.param)


def ports_of(container: dict[str, Any]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def test_resources_are_as_kubernetes_schemas_say(manifest: Manifest) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate").validate
    for resource in manifest.resources:
        if resource["kind"] not in CUSTOM:
            validate(resource, "1.34", strict=True)


def test_every_variable_is_a_setting_and_together_they_are_valid(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    container, variables = manifest.container(), manifest.environment()
    assert variables.keys() <= {PREFIX + name.upper() for name in Settings.model_fields}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = Settings()  # type: ignore[call-arg]  # from the variables
    assert settings.admin_port == ports_of(container)["admin"]
    assert settings.admin_host == "0.0.0.0", "Prometheus is outside of the pod"
    assert settings.port == ports_of(container)["http"]
    assert settings.num_threads == int(container["resources"]["requests"]["cpu"])


def test_what_kubernetes_says_about_services_is_kept_from_the_containers(manifest: Manifest) -> None:
    for kind, name in WORKLOADS:
        assert manifest.pod(kind, name)["enableServiceLinks"] is False


def test_secrets_are_not_written_down(manifest: Manifest) -> None:
    given = {each["name"]: each for each in manifest.container()["env"]}

    assert "Secret" not in {each["kind"] for each in manifest.resources}
    for name in ("VIP5_REDIS_PASSWORD", "VIP5_ADMIN_TOKEN"):
        assert "secretKeyRef" in given[name]["valueFrom"]


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_asks_what_there_is(manifest: Manifest, probe: str) -> None:
    asked = manifest.container()[probe]["httpGet"]

    assert asked["path"] in {getattr(route, "path", "") for route in health.router.routes}
    assert asked["port"] in ports_of(manifest.container())


def test_a_pod_has_the_time_to_drain(manifest: Manifest) -> None:
    (_, wait_s) = manifest.container()["lifecycle"]["preStop"]["exec"]["command"]
    drain_s = float(manifest.environment()["VIP5_DRAIN_S"])

    assert manifest.pod()["terminationGracePeriodSeconds"] > float(wait_s) + drain_s


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_a_pod_may_do_nothing_that_it_need_not(manifest: Manifest, kind: str, name: str) -> None:
    (user,) = [each.value for each in of_stage("cpu") if each.name == "USER"]
    users = {"vip5": user, "redis": compose()["services"]["redis"]["user"]}
    pod, container = manifest.pod(kind, name), manifest.container(kind, name)

    assert users[name] == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    written = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]
    assert written == {"vip5": ["/tmp"], "redis": ["/data"]}[name]
    claims = manifest.find(kind, name)["spec"].get("volumeClaimTemplates", ())
    volumes = {each["name"] for each in pod["volumes"]} | {each["metadata"]["name"] for each in claims}
    assert {each["name"] for each in container["volumeMounts"]} == volumes


def test_what_is_selected_is_what_there_is(manifest: Manifest) -> None:
    for kind, name in WORKLOADS:
        labels = manifest.find(kind, name)["spec"]["template"]["metadata"]["labels"]
        assert manifest.find(kind, name)["spec"]["selector"]["matchLabels"] == labels
        assert manifest.find("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == labels
        assert manifest.find("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"] == labels
    for constraint in manifest.pod()["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == {"app": "vip5"}
    for name, port in {"vip5": "http", "vip5-admin": "admin"}.items():
        service = manifest.find("Service", name)["spec"]
        assert service["selector"] == {"app": "vip5"}
        assert [each["targetPort"] for each in service["ports"]] == [port]


def test_the_address_of_redis_is_that_of_its_primary(manifest: Manifest) -> None:
    service = manifest.find("Service", "redis")["spec"]
    variables = manifest.environment("StatefulSet", "redis")

    assert manifest.environment()["VIP5_REDIS_URL"] == f"redis://redis:{service['ports'][0]['port']}/0"
    assert service["selector"]["statefulset.kubernetes.io/pod-name"] == variables["PRIMARY"]
    assert manifest.find("StatefulSet", "redis")["spec"]["serviceName"] == "redis-pods"
    assert f'"$PRIMARY.{manifest.find("Service", "redis-pods")["metadata"]["name"]}"' in str(
        manifest.container("StatefulSet", "redis")["args"]
    )
    assert (FOLDER / "base/redis.conf").read_text() == (ROOT / "deploy/compose/redis.conf").read_text()


def test_policies_let_in_who_has_to_come_in(manifest: Manifest) -> None:
    ingress = {rule["ports"][0]["port"]: rule.get("from") for rule in manifest.find("NetworkPolicy")["spec"]["ingress"]}
    (to_redis, names) = manifest.find("NetworkPolicy")["spec"]["egress"]

    assert ingress.keys() == ports_of(manifest.container()).keys()
    assert ingress["http"] is None, "from anywhere"
    assert ingress["admin"], "only from some"
    assert to_redis["to"] == [{"podSelector": {"matchLabels": {"app": "redis"}}}]
    assert {(each["port"], each["protocol"]) for each in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    (clients,) = manifest.find("NetworkPolicy", "redis")["spec"]["ingress"]
    assert {"podSelector": {"matchLabels": {"app": "vip5"}}} in clients["from"]


def test_metrics_have_the_job_that_alerts_need(manifest: Manifest) -> None:
    monitor = manifest.find("PodMonitor")["spec"]
    labels = manifest.find("Deployment")["spec"]["template"]["metadata"]["labels"]
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    (endpoint,) = monitor["podMetricsEndpoints"]

    assert labels[monitor["jobLabel"]] == job["job_name"]
    assert monitor["selector"]["matchLabels"] == labels
    assert endpoint["port"] in ports_of(manifest.container())
    assert endpoint["path"] == job["metrics_path"]


def test_the_operators_rules_are_those_of_prometheus(manifest: Manifest) -> None:
    assert rules.FILE.read_text() == rules.build(), "run python -m deploy.kubernetes.rules"
    groups = manifest.find("PrometheusRule")["spec"]["groups"]
    written = [group for file in rules.SOURCES for group in yaml.safe_load(file.read_text())["groups"]]
    assert groups == written


def queries_of_the_adapter() -> dict[str, str]:
    document = yaml.safe_load((FOLDER / "components/autoscaling/prometheus-adapter.yml").read_text())
    return {each["name"]["as"]: each["metricsQuery"] for each in document["rules"]["external"]}


def test_the_autoscaler_asks_for_metrics_that_the_adapter_makes(manifest: Manifest) -> None:
    scaler = manifest.find("HorizontalPodAutoscaler")["spec"]
    asked = {each["external"]["metric"]["name"] for each in scaler["metrics"]}

    assert asked == queries_of_the_adapter().keys()
    assert scaler["scaleTargetRef"]["name"] == manifest.find("Deployment")["metadata"]["name"]
    assert "replicas" not in manifest.find("Deployment")["spec"], "each deployment would undo the autoscaler's choice"


def test_both_autoscalers_scale_by_the_same(tmp_path: Path) -> None:
    with_keda = overlay_with("cpu", tmp_path, {"autoscaling": "keda"})
    scaled, scaler = with_keda.find("ScaledObject")["spec"], overlay("cpu").find("HorizontalPodAutoscaler")["spec"]
    queries = [each["metadata"]["query"].replace('job="vip5"', "<<.LabelMatchers>>") for each in scaled["triggers"]]
    limits = [float(each["metadata"]["threshold"]) for each in scaled["triggers"]]
    targets = [each["external"]["target"]["value"] for each in scaler["metrics"]]

    assert "HorizontalPodAutoscaler" not in {each["kind"] for each in with_keda.resources}
    assert queries == list(queries_of_the_adapter().values())
    assert [f"{limit * 1000:.0f}m" for limit in limits] == targets
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (scaler["minReplicas"], scaler["maxReplicas"])
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == scaler["behavior"]


@pytest.mark.parametrize("query", queries_of_the_adapter().values())
def test_an_autoscalers_query_is_valid_and_names_metrics_that_exist(query: str, tmp_path: Path) -> None:
    expression = query.replace("<<.LabelMatchers>>", 'namespace="shop"')
    assert names_in(expression) <= metric_names()
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    (tmp_path / "rules.yml").write_text(
        json.dumps({"groups": [{"name": "a", "rules": [{"record": "a:b", "expr": expression}]}]})
    )
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_replica_on_a_gpu_has_one_and_runs_the_image_for_it() -> None:
    gpu, cpu = overlay("gpu"), overlay("cpu")

    assert gpu.container()["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in cpu.container()["resources"]["limits"]
    assert gpu.container()["image"] == "vip5-serve:cuda"
    assert cpu.container()["image"] == "vip5-serve:cpu"
    assert gpu.container("StatefulSet", "redis")["image"] == compose()["services"]["redis"]["image"].partition("@")[0]
