"""What a command says when it fails, and its exit status: the one place where both are decided.

- 0 is success.
- 2 is wrong usage: the command line or a setting has to change, because it is unknown, has a bad value, names a file or
  a domain that does not exist, or would overwrite what exists.
- 1 is every other failure: a file whose content breaks a rule, a Redis that does not answer, a full disk, a missing
  library.
- 130 is Ctrl-C.

Each failure is one line on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

import typer

from feature_cache.errors import FeatureCacheError, RedisAddressError
from model.errors import ExistsError, InputError, Vip5Error

WRONG_USAGE, FAILURE = 2, 1

_USAGE_ERRORS = (InputError, ExistsError, RedisAddressError)
_PROVIDED: Mapping[str, tuple[str, ...]] = {
    "train": (
        "accelerate",
        "matplotlib",
        "rouge_score",
        "sacrebleu",
        "scipy",
        "sklearn",
        "tensorboard",
        "threadpoolctl",
        "transformers",
    ),
    "encode": ("PIL", "filelock", "onnxscript", "urllib3"),
    "http": ("aiohttp",),
    "open-clip": ("open_clip", "torchvision"),
    "otel": ("opentelemetry",),
    "ray": ("ray",),
    "sasrec": ("pandas", "pytorch_lightning", "rectools"),
    "signing": ("cryptography",),
}
EXTRAS: Mapping[str, str] = {module: extra for extra, modules in _PROVIDED.items() for module in modules}
"""Modules that only some commands import, and the extra that installs them."""

_OWN = ("service", "model", "feature_cache")


def require(*modules: str) -> None:
    """Raise ModuleNotFoundError, as an import would, for the first module that is not installed.

    For libraries that a command needs late, or that another library reports in its own words. It imports nothing.
    """
    for module in modules:
        try:
            is_installed = sys.modules.get(module, module) is not None and find_spec(module) is not None
        except (ImportError, ValueError):
            is_installed = False
        if not is_installed:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


class UsageError(typer.BadParameter):
    """A mistake in the options or settings that typer cannot see; the message names the remedy."""

    def format_message(self) -> str:
        return self.message


def failure_of(error: Exception) -> tuple[int, str] | None:
    """The exit status and the line to print; None for an error that is a bug."""
    if isinstance(error, typer.TyperException):
        return error.exit_code, _usage(error)
    missing = _missing_library(error)
    if missing is not None:
        return FAILURE, missing
    if isinstance(error, (Vip5Error, FeatureCacheError, OSError)):
        return WRONG_USAGE if isinstance(error, _USAGE_ERRORS) else FAILURE, _one_line(str(error))
    return None


def _missing_library(error: BaseException) -> str | None:
    """The line for a library that cannot be imported; None for any other error, such as a module of our own.

    The cause counts, because libraries report the failed import of another library as an error of their own.
    """
    if isinstance(error, (Vip5Error, FeatureCacheError)):
        return None  # it says so itself
    causes: list[BaseException] = []
    while error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__ or error
    for cause in causes:
        if not isinstance(cause, ImportError):
            continue
        library = (cause.name or "").partition(".")[0]
        if library in EXTRAS:
            extra = EXTRAS[library]
            return f"{_one_line(str(cause))}; this command needs the extra {extra}: pip install 'vip5-serve[{extra}]'"
        if isinstance(cause, ModuleNotFoundError) and library and library not in _OWN:
            return f"{_one_line(str(cause))}; install what vip5-serve needs: pip install --force-reinstall vip5-serve"
    return None


def _usage(error: typer.TyperException) -> str:
    """Typer's message as a line like the others, with the command whose help says more."""
    message = _one_line(error.format_message())
    if isinstance(error, UsageError) or not message:  # a group without a command has printed its help
        return message
    message = (message[0].lower() + message[1:]).rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message}; see {context.command_path} --help"


def _one_line(text: str) -> str:
    return " ".join(text.split())
