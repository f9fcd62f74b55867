"""Settings from the environment, read once at the start."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from feature_cache.signing import Signing
from service.settings.fields import PREFIX
from service.settings.service_links import service_links
from service.settings.settings import SECRETS, Settings
from service.settings.signing import SIGNING_SECRETS, SigningSettings

S = TypeVar("S", bound=BaseSettings)


class SettingsError(Exception):
    """An unknown setting, or one with a bad value; the service does not start."""


def load_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the environment; `overrides`, a command line's options, take precedence where they are not None.

    Variables of Kubernetes' that look like settings are removed from the environment.
    Raises SettingsError that names each unknown variable, missing setting and bad value.
    """
    for name in service_links(os.environ):
        del os.environ[name]
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}: remove it or use one of {', '.join(sorted(known))}")
    given = _secrets_of_files(SECRETS) | {name: value for name, value in (overrides or {}).items() if value is not None}
    return _checked(Settings, given)


def load_signing() -> Signing | None:
    """What signs the data in Redis, from the environment, for commands. Raises SettingsError."""
    return _checked(SigningSettings, _secrets_of_files(SIGNING_SECRETS)).signing


def _checked(kind: type[S], given: Mapping[str, object]) -> S:
    try:
        return kind(**given)  # type: ignore[arg-type]  # pydantic checks what the types cannot
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_line(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors())
        ) from error


def _secrets_of_files(names: Iterable[str]) -> dict[str, str]:
    """Secrets whose `…_FILE` variable names a file, as container platforms mount them. Raises SettingsError."""
    found = {}
    for name in names:
        variable = f"{PREFIX}{name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if path is None:
            continue
        if variable in os.environ:
            raise SettingsError(f"{variable} and {variable}_FILE are both set; set one of them")
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{variable}_FILE is {path!r}, which cannot be read as text: {error}") from error
    return found


def _line(location: tuple[int | str, ...], message: str, value: object) -> str:
    message = message.removeprefix("Value error, ")
    if not location:  # about several settings, which the message names; the value is all of them, secrets too
        return message
    name = str(location[0])  # the rest is a place in a list
    if message == "Field required":
        return f"setting {name} is missing: give --{name.replace('_', '-')} or set {PREFIX}{name.upper()}"
    shown = "" if name in SECRETS else f" is {value!r}"
    return f"setting {name} ({PREFIX}{name.upper()}){shown}: {message}"
