"""The Alertmanager of docker-compose.yml notifies of a page."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.processes import PATIENCE_S, ROOT
from tests.redis_servers import HOST, free_port
from tests.server_threads import serving_in_a_thread
from tests.unit.deploy.containers import services

FILE = ROOT / "deploy/compose/alertmanager.yml"


@contextmanager
def webhook() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """An address, and what is sent to it."""
    received: queue.Queue[dict[str, Any]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
            pass

    server = HTTPServer((HOST, 0), Receiver)
    with serving_in_a_thread(server):
        yield f"http://{HOST}:{server.server_port}/", received


def configuration(folder: Path, url: str, **times: str) -> Path:
    """The file of docker-compose.yml with the address in it, which Alertmanager before 0.26 cannot read from a file."""
    document = yaml.safe_load(FILE.read_text())
    for receiver in document["receivers"]:
        for hook in receiver["webhook_configs"]:
            assert hook.pop("url_file") == "/tmp/webhook-url"
            hook["url"] = url
    document["route"]["routes"][0] |= times
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(document))
    return folder / "alertmanager.yml"


def test_a_page_is_sent_at_once_and_with_its_runbook(tmp_path: Path) -> None:
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    url = f"http://{HOST}:{free_port()}"
    with webhook() as (address, received):
        options = [f"--config.file={configuration(tmp_path, address, group_wait='0s')}"]
        options += [f"--storage.path={tmp_path}", f"--web.listen-address={url.removeprefix('http://')}"]
        with subprocess.Popen([program, *options, "--cluster.listen-address="], stderr=subprocess.DEVNULL) as process:
            try:
                post(process, f"{url}/api/v2/alerts", "page")
                notice = received.get(timeout=PATIENCE_S)
            finally:
                process.kill()

    assert notice["receiver"] == "page"
    assert notice["alerts"][0]["annotations"]["runbook"].startswith("docs/operations.md#")


def post(process: subprocess.Popen[bytes], url: str, severity: str) -> None:
    """One firing alert, as soon as Alertmanager takes it."""
    alert = {
        "labels": {"alertname": "Vip5RedisDown", "job": "vip5", "severity": severity},
        "annotations": {"runbook": "docs/operations.md#vip5-redis-down"},
    }
    while True:
        assert process.poll() is None
        try:
            httpx.post(url, json=[alert]).raise_for_status()
        except httpx.TransportError:
            continue
        return


def test_the_file_that_the_container_writes_is_the_one_that_is_read(tmp_path: Path) -> None:
    *shell, line = services()["alertmanager"]["entrypoint"]
    read = {
        hook["url_file"] for each in yaml.safe_load(FILE.read_text())["receivers"] for hook in each["webhook_configs"]
    }
    (file,) = read
    line = line.replace(file, str(tmp_path / "url")).replace("exec alertmanager", "exec true")

    for url, warnings in (("http://pager/", 0), ("", 1)):
        done = subprocess.run(
            [*shell, line], env={"PATH": "/usr/bin:/bin", "ALERT_WEBHOOK_URL": url}, capture_output=True, check=True
        )
        assert (tmp_path / "url").read_text() == url
        assert done.stderr.count(b"nobody is notified") == warnings
