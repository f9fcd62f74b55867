"""Enough of a Docker daemon for `docker compose --dry-run`: it has the images that are named, and nothing else."""

from __future__ import annotations

import json
import re
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.server_threads import serving_in_a_thread

EMPTY_LISTS = re.compile(r"/(containers|images)/json|/networks|/volumes")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        pass

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        path = re.sub(r"^/v[\d.]+", "", self.path).partition("?")[0]
        if path == "/volumes":
            self._answer({"Volumes": []})
        elif EMPTY_LISTS.fullmatch(path):
            self._answer([])
        elif path in {"/_ping", "/info", "/version"}:
            self._answer({"ApiVersion": "1.47", "OSType": "linux"})
        elif path.startswith("/images/"):
            self._answer({"Id": f"sha256:{'0' * 64}", "RepoTags": [], "Os": "linux", "Architecture": "amd64"})
        else:
            self._answer({"message": f"no such thing: {path}"}, status=404)

    def _answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.47")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def docker_daemon(folder: Path) -> Iterator[str]:
    """Its address, for DOCKER_HOST."""
    path = folder / "d.sock"
    with serving_in_a_thread(_Server(str(path), _Handler)):
        yield f"unix://{path}"
