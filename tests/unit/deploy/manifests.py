"""The Kubernetes manifests as kustomize makes them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.containers import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu")


@dataclass(frozen=True)
class Manifest:
    """All resources of one overlay."""

    resources: tuple[dict[str, Any], ...]

    def find(self, kind: str, name: str = "vip5") -> dict[str, Any]:
        """The resource of this name."""
        (found,) = [each for each in self.resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
        return found

    def pod(self, kind: str = "Deployment", name: str = "vip5") -> dict[str, Any]:
        found: dict[str, Any] = self.find(kind, name)["spec"]["template"]["spec"]
        return found

    def container(self, kind: str = "Deployment", name: str = "vip5") -> dict[str, Any]:
        (found,) = self.pod(kind, name)["containers"]
        return dict(found)

    def environment(self, kind: str = "Deployment", name: str = "vip5") -> dict[str, str]:
        return self.variables_of(self.container(kind, name))

    def variables_of(self, container: dict[str, Any]) -> dict[str, str]:
        """A container's variables; a secret's value is the name of its key, repeated to a length that is accepted."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            (given,) = [
                each["data"] for each in self.resources if each["metadata"]["name"] == source["configMapRef"]["name"]
            ]
            found |= given
        for each in container["env"]:
            found[each["name"]] = each["value"] if "value" in each else self.value(each["valueFrom"], container)
        return found

    def value(self, source: dict[str, Any], container: dict[str, Any]) -> str:
        """What a variable or an option is given from elsewhere."""
        if "secretKeyRef" in source:
            return f"a-secret-{source['secretKeyRef']['key']}-of-tests"
        if "resourceFieldRef" in source:
            field = source["resourceFieldRef"]
            assert field == {"resource": "requests.cpu", "divisor": "1"}
            return str(container["resources"]["requests"]["cpu"])
        return {"metadata.name": "redis-0"}[source["fieldRef"]["fieldPath"]]


def kustomize(folder: Path) -> Manifest:
    """The output of kustomize for a folder; skips where it is not installed."""
    for command in (("kubectl", "kustomize"), ("kustomize", "build")):
        if shutil.which(command[0]) is not None:
            done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            return Manifest(tuple(yaml.safe_load_all(done.stdout)))
    pytest.skip("neither kubectl nor kustomize is installed")


@functools.cache
def overlay(name: str) -> Manifest:
    return kustomize(FOLDER / "overlays" / name)


def overlay_with(name: str, folder: Path, components: dict[str, str]) -> Manifest:
    """An overlay with components in place of others, as its comments say."""
    shutil.copytree(FOLDER, folder / "kubernetes")
    file = folder / "kubernetes" / "overlays" / name / "kustomization.yml"
    text = file.read_text()
    for old, new in components.items():
        assert f"components/{old} #" in text
        text = text.replace(f"components/{old} #", f"components/{new} #")
    file.write_text(text)
    return kustomize(file.parent)
