"""A real Prometheus that scrapes and evaluates several times a second."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import ROOT
from tests.redis_servers import HOST, NUM_TRIES, free_port

PATIENCE_S = 30.0
RULES = ROOT / "deploy" / "prometheus" / "rules"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "vip5.json"
CONFIG = """
storage: {{exemplars: {{max_exemplars: 10000}}}}
global: {{scrape_interval: {scrape_ms}ms, scrape_timeout: {scrape_ms}ms, evaluation_interval: {scrape_ms}ms}}
rule_files: [{rules}]
scrape_configs: [{{job_name: vip5, static_configs: [{{targets: {targets}}}]}}]
"""


def require_prometheus(*programs: str) -> None:
    """Skip where Prometheus is not installed."""
    missing = [name for name in programs or ("prometheus",) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: install prometheus from the system's packages")


def panel_exprs(rate_interval: str) -> dict[str, list[str]]:
    """All queries of the committed dashboard by their panel's title, for all domains and routes."""
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    exprs = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels}
    anything = dict.fromkeys(("$job", "$instance", "$domain", "$route"), ".+")
    variables = {**anything, "$__rate_interval": rate_interval}
    for name, value in variables.items():
        exprs = {title: [expr.replace(name, value) for expr in each] for title, each in exprs.items()}
    return exprs


def wait_until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Sample:
    """One series of an answer."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    client: httpx.Client
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def query(self, expr: str) -> list[Sample]:
        """What an expression is now; what is not a number is left out."""
        samples = [Sample(each["metric"], float(each["value"][1])) for each in self._ask("query", query=expr)["result"]]
        return [sample for sample in samples if math.isfinite(sample.value)]

    def largest(self, expr: str) -> float:
        """Of all series; -inf if there is none."""
        return max((sample.value for sample in self.query(expr)), default=-math.inf)

    def firing(self) -> set[str]:
        """Names of alerts."""
        alerts = self._ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def exemplars(self, expr: str) -> list[Mapping[str, str]]:
        """Labels of those that were scraped in the last hour."""
        now = time.time()
        answer = self._ask("query_exemplars", query=expr, start=str(now - 3600), end=str(now))
        return [exemplar["labels"] for series in answer for exemplar in series["exemplars"]]

    def is_ready(self) -> bool:
        """Raises OSError if it ended instead, such as for a port that was taken."""
        if self.process.poll() is not None:
            raise OSError("prometheus ended")
        with suppress(httpx.TransportError):
            return self.client.get("/-/ready").status_code == 200
        return False

    def _ask(self, what: str, **parameters: str) -> Any:  # noqa: ANN401  # each question has an answer of its own form
        answer = self.client.get(f"/api/v1/{what}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextmanager
def prometheus(folder: Path, targets: Sequence[str], scrape_ms: int = 250) -> Iterator[Prometheus]:
    """Scrapes `targets` (host:port) with the committed rules, whose alerts fire at once instead of after minutes."""
    require_prometheus()
    for rules in RULES.glob("*.yml"):
        (folder / rules.name).write_text(re.sub(r"\bfor: \S+", "for: 0s", rules.read_text()))
    config = folder / "prometheus.yaml"
    config.write_text(CONFIG.format(rules=f"{folder}/*.yml", targets=json.dumps(list(targets)), scrape_ms=scrape_ms))
    running = _started(folder, config)
    try:
        yield running
    finally:
        running.client.close()
        running.process.kill()
        running.process.wait()


def _started(folder: Path, config: Path) -> Prometheus:
    """Another process may take a port between finding and using it, so a few are tried."""
    for attempt in range(NUM_TRIES):
        place = f"{HOST}:{free_port()}"
        files = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data-{attempt}"]
        command = ["prometheus", *files, f"--web.listen-address={place}", "--enable-feature=exemplar-storage"]
        with (folder / "prometheus.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        running = Prometheus(httpx.Client(base_url=f"http://{place}", timeout=PATIENCE_S), process)
        with suppress(OSError):
            wait_until(running.is_ready, "Prometheus is ready")
            return running
    raise TimeoutError(f"Prometheus does not start; {folder}/prometheus.log says why")
