"""The rules hold what their tests, deploy/prometheus/tests, say of them."""

from __future__ import annotations

import subprocess

from tests.e2e.processes import ROOT
from tests.e2e.prometheus import require_prometheus

FOLDER = ROOT / "deploy" / "prometheus"


def promtool(*arguments: str) -> str:
    require_prometheus("promtool")
    process = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_configuration_and_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", "--lint-fatal", "prometheus.yml")


def test_every_rule_gives_and_every_alert_does_what_its_cases_say() -> None:
    cases = sorted(str(file.relative_to(FOLDER)) for file in (FOLDER / "tests").glob("*.yml"))

    assert promtool("test", "rules", *cases).count("SUCCESS") == len(cases)
