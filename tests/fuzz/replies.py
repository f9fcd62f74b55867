"""Whether an answer is as the OpenAPI document says, checked in microseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from jsonschema_rs import Draft202012Validator

PROBLEM = "application/problem+json"
PROBES = {"ready", "domain_ready"}
"""They answer 503 while a domain is unloaded."""
MEANT = (504, "deadline_exceeded")
"""The only other refusal with 5xx that a request may ask for, by its own deadline."""


class Document:
    """An OpenAPI document, with its schemas ready for use."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._validators: dict[str, Draft202012Validator] = {}

    @cached_property
    def operations(self) -> dict[str, dict[str, Any]]:
        """By their ids."""
        return {
            operation["operationId"]: operation
            for path in self._document["paths"].values()
            for operation in path.values()
            if isinstance(operation, dict) and "operationId" in operation
        }

    def admits(self, operation: str, body: object) -> bool:
        """Whether a body keeps the document's rules; True if there are none."""
        content = self.operations[operation].get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        return schema is None or self._keeps(f"body of {operation}", schema, body)

    def fault_in(self, operation: str, status: int, media_type: str, content: bytes) -> str:
        """What is not as the document says about an answer, or nothing."""
        responses = self.operations[operation]["responses"]
        described = responses.get(str(status))
        if described is None:
            return f"status {status} is not documented"
        expected = described.get("content", {})
        media_type = media_type.partition(";")[0].strip()
        if not expected or not content:
            return ""
        found = next((each for each in expected if _matches(each, media_type)), None)
        if found is None:
            return f"status {status} came as {media_type!r}, documented are {', '.join(expected)}"
        schema = expected[found].get("schema", {})
        if not found.endswith("json") or not schema:
            return ""
        try:
            answer = json.loads(content)
        except ValueError:
            return f"status {status} is no JSON"
        is_kept = self._keeps(f"{operation} {status}", schema, answer)
        return "" if is_kept else f"status {status} has a body that is not as documented"

    def _keeps(self, name: str, schema: Mapping[str, Any], value: object) -> bool:
        if name not in self._validators:
            components = self._document.get("components", {})
            self._validators[name] = Draft202012Validator({**schema, "components": components})
        try:
            return self._validators[name].is_valid(value)
        except ValueError:  # unpaired surrogates and numbers beyond what the library knows
            return True


def is_server_error(operation: str, status: int, content: bytes) -> bool:
    """Whether a status of 5xx is none that the request asked for."""
    return status >= 500 and not (operation in PROBES and status == 503) and (status, code_of(content)) != MEANT


def _matches(documented: str, media_type: str) -> bool:
    return documented == media_type or (documented.endswith("/*") and media_type.startswith(documented[:-1]))


def code_of(content: bytes) -> str:
    """The code of a problem document."""
    try:
        return str(json.loads(content)["code"])
    except (ValueError, KeyError, TypeError):
        return ""
