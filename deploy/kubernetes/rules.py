"""Writes the PrometheusRule from deploy/prometheus/rules: python -m deploy.kubernetes.rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent / "components" / "monitoring" / "rules.yml"
SOURCES = sorted((Path(__file__).parents[1] / "prometheus" / "rules").glob("*.yml"))


def build() -> str:
    """All groups of rules as one resource of the Prometheus operator."""
    groups = [group for file in SOURCES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    resource: dict[str, Any] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "vip5"},
        "spec": {"groups": groups},
    }
    head = "# Written by python -m deploy.kubernetes.rules from deploy/prometheus/rules.\n"
    return head + yaml.safe_dump(resource, sort_keys=False, width=120)


if __name__ == "__main__":
    FILE.write_text(build(), encoding="utf-8")
    print(FILE)
