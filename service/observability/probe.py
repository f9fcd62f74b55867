"""A container's health check: `python -m service.observability.probe` exits with 0 if the service is ready, else 1.

Replaces curl in the image, and imports only what starts fast. The only setting it reads is VIP5_PORT.
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
        message = f"{response.status} {response.read(1000).decode()}"
        is_ready = response.status == http.client.OK
    except (OSError, http.client.HTTPException) as error:
        message, is_ready = str(error), False
    sys.exit(None if is_ready else message)


if __name__ == "__main__":
    main()
