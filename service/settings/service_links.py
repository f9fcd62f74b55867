"""Kubernetes' variables about Services whose names start with `vip5`; they look like settings and are none.

A pod with `enableServiceLinks` (the default) gets VIP5_SERVICE_HOST=10.0.0.1, VIP5_PORT=tcp://10.0.0.1:80 and so on for
each Service of its namespace. https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from service.settings.fields import PREFIX

_HOST = "_SERVICE_HOST"
_OF_A_SERVICE = r"_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")


def service_links(variables: Mapping[str, str]) -> frozenset[str]:
    """The names that Kubernetes set: those of a Service whose host is among them. VIP5_PORT=8000 is not one."""
    services = [
        name.removesuffix(_HOST) for name in variables if name.endswith(_HOST) and f"{name}_".startswith(PREFIX)
    ]
    return frozenset(
        name for service in services for name, value in variables.items() if _belongs(service, name, value)
    )


def _belongs(service: str, name: str, value: str) -> bool:
    if not name.startswith(service):
        return False
    rest = name.removeprefix(service)
    if rest == "_PORT":
        return _ADDRESS.fullmatch(value) is not None
    return re.fullmatch(_OF_A_SERVICE, rest) is not None
