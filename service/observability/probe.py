"""A container's health check: `python -m service.observability.probe` exits with 0 while requests are taken, else 1.

Needs no curl in the image, and imports nothing that takes long. VIP5_PORT is the only setting that it reads.
"""

from __future__ import annotations

import http.client
import os
import sys

DEFAULT_PORT = 8000
TIMEOUT_S = 2.0


def main() -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("VIP5_PORT", DEFAULT_PORT)), TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        told = f"{response.status} {response.read(1000).decode()}"
        is_ready = response.status == http.client.OK
    except (OSError, http.client.HTTPException) as error:
        told, is_ready = str(error), False
    sys.exit(None if is_ready else told)


if __name__ == "__main__":
    main()
