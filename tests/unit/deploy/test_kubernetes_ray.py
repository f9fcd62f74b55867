"""deploy/kubernetes/overlays/ray and deploy/ray agree with the application, the settings and Kubernetes' schemas."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from service.ray.options import ApplicationOptions, DomainPlace, Scaling
from service.ray.settings import settings_of
from service.settings.fields import PREFIX
from service.settings.loading import SettingsError
from service.settings.settings import Settings
from tests.unit.deploy.containers import ROOT
from tests.unit.deploy.kuberay import AUTH_TOKEN, head_of, worker_of
from tests.unit.deploy.manifests import Manifest, overlay

CUSTOM = {"PodMonitor", "RayService"}
CONFIG = ROOT / "deploy" / "ray" / "serve.yml"


@pytest.fixture
def manifest() -> Manifest:
    return overlay("ray")


def templates(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The pods of a Ray cluster."""
    cluster = manifest.find("RayService")["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return {"head": cluster["headGroupSpec"]["template"], "workers": workers["template"]}


def container_of(template: dict[str, Any]) -> dict[str, Any]:
    (found,) = template["spec"]["containers"]
    return dict(found)


def as_deployment(template: dict[str, Any]) -> dict[str, Any]:
    """A pod template within a resource that Kubernetes' schemas know."""
    spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "vip5"}, "spec": spec}


def test_resources_and_pods_are_as_kubernetes_schemas_say(manifest: Manifest) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate").validate
    known = [each for each in manifest.resources if each["kind"] not in CUSTOM]
    for resource in [*known, *map(as_deployment, templates(manifest).values())]:
        validate(resource, "1.34", strict=True)


def test_ray_takes_the_place_of_the_deployment(manifest: Manifest) -> None:
    kinds = {each["kind"] for each in manifest.resources}
    assert "Deployment" not in kinds
    assert "HorizontalPodAutoscaler" not in kinds, "Ray scales by itself"
    names = [each["metadata"]["name"] for each in manifest.resources if each["kind"] == "Service"]
    assert names == ["redis", "redis-pods"], "KubeRay makes the others"


def test_the_settings_are_possible_with_several_replicas(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    for template in templates(manifest).values():
        container = container_of(template)
        (source,) = container["envFrom"]
        (given,) = [
            each["data"] for each in manifest.resources if each["metadata"]["name"] == source["configMapRef"]["name"]
        ]
        own = {each["name"]: each.get("value", "a-secret-of-the-tests") for each in container["env"]}
        assert own.pop("RAY_USAGE_STATS_ENABLED") == "0"
        node_drain_s = float(own.pop("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"))
        variables = given | own
        assert variables.keys() <= {PREFIX + name.upper() for name in Settings.model_fields}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings = settings_of(ApplicationOptions(num_cpus=2))
        assert settings.num_threads == 2
        assert template["spec"]["enableServiceLinks"] is False
        # A node that is ended waits for its replicas, and Kubernetes for the node.
        assert settings.drain_s + 10 < node_drain_s < template["spec"]["terminationGracePeriodSeconds"]


def test_the_config_is_that_of_serve_deploy_and_the_application_takes_it(manifest: Manifest) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert yaml.safe_load(manifest.find("RayService")["spec"]["serveConfigV2"]) == config
    (application,) = config["applications"]
    options = ApplicationOptions.model_validate(application["args"])
    (requests,) = {str(container_of(each)["resources"]["requests"]["cpu"]) for each in [templates(manifest)["workers"]]}
    assert options.num_cpus + options.ingress_cpus <= float(requests), "one of each fits into a pod"
    workers = manifest.find("RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert workers["maxReplicas"] == options.scaling.max_replicas


def test_what_the_config_has_as_comments_is_valid_too() -> None:
    text = re.sub(r"^( *)# (?=[ \w-]+:)", r"\1", CONFIG.read_text().partition("proxy_location")[2], flags=re.MULTILINE)
    (application,) = yaml.safe_load("proxy_location" + text)["applications"]
    options = ApplicationOptions.model_validate(application["args"])
    assert options.domains_per_replica
    assert options.num_gpus == 1
    replica, ingress = application["deployments"]
    assert replica["user_config"] == ingress["user_config"]
    for place in replica["user_config"]["domains"].values():
        DomainPlace.model_validate(place)


def test_pods_may_do_nothing_that_they_need_not(manifest: Manifest) -> None:
    """KubeRay adds a container to the head's pod, the autoscaler, which may do what its image may unless it is told."""
    cluster = manifest.find("RayService")["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"]
    autoscaler = cluster["autoscalerOptions"]
    assert {"name": "tmp", "mountPath": "/tmp"} in autoscaler["volumeMounts"]
    for name, template in templates(manifest).items():
        container = container_of(template)
        assert container["image"] == "vip5-serve:ray"
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        assert template["spec"]["automountServiceAccountToken"] is (name == "head")
        assert container["securityContext"] == autoscaler["securityContext"]
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_a_worker_is_in_the_service_while_it_has_a_proxy(manifest: Manifest) -> None:
    """KubeRay's own probe of workers asks Ray's proxy, which is on nodes with a replica only; another replaces it."""
    asked = container_of(templates(manifest)["workers"])["readinessProbe"]["httpGet"]
    assert asked == {"path": "/-/healthz", "port": "serve"}


def test_ray_answers_to_the_operators_token_only(manifest: Manifest) -> None:
    """Left unset, the mode would depend on files in the home folder of whoever starts the head."""
    for pod in (head_of(manifest), worker_of(manifest)):
        assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & {each["name"] for each in pod.container["env"]}
        assert pod.variables["RAY_AUTH_MODE"] == "token"
        assert pod.variables["RAY_AUTH_TOKEN"] == AUTH_TOKEN


def test_who_may_reach_what(manifest: Manifest) -> None:
    rules = manifest.find("NetworkPolicy")["spec"]["ingress"]
    anybody = [rule for rule in rules if "from" not in rule]
    assert [[port["port"] for port in rule["ports"]] for rule in anybody] == [["serve"]]
    opened = {port["port"] for rule in rules for port in rule.get("ports", ())}
    ports = {port["name"] for port in container_of(templates(manifest)["head"])["ports"]}
    assert opened <= ports
    (monitor,) = manifest.find("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert monitor["port"] == "serve"
    assert manifest.find("PodMonitor", "vip5-ray")["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"workers": 2}, "remove VIP5_WORKERS"),
        ({"admin_port": 8001}, "remove VIP5_ADMIN_PORT"),
        ({"admin_token": "x" * 16}, "set VIP5_JOURNAL to redis"),
        ({"history_store": "embedded"}, "VIP5_HISTORY_STORE to redis or none"),
    ],
)
def test_settings_that_only_one_process_can_have_are_refused(given: dict[str, object], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        settings_of(ApplicationOptions(settings={"bundle": "bundle", **given}))


def test_gpus_mean_the_device_unless_another_is_chosen() -> None:
    bundle: dict[str, object] = {"bundle": "bundle"}
    assert settings_of(ApplicationOptions(settings=bundle)).device == "cpu"
    assert settings_of(ApplicationOptions(settings=bundle, num_gpus=0.5)).device == "cuda"
    assert settings_of(ApplicationOptions(settings={**bundle, "device": "cpu"}, num_gpus=1)).device == "cpu"
    assert settings_of(ApplicationOptions(settings=bundle, num_cpus=0.5)).num_threads == 1


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="raise max_replicas"):
        Scaling(min_replicas=2, max_replicas=1)
    with pytest.raises(ValueError, match="without domains_per_replica"):
        ApplicationOptions(domains={"toys": DomainPlace()})
