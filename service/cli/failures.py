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

from collections.abc import Mapping

import typer

from feature_cache.errors import FeatureCacheError, RedisAddressError
from model.errors import ExistsError, InputError, Vip5Error

WRONG_USAGE, FAILURE = 2, 1

_USAGE_ERRORS = (InputError, ExistsError, RedisAddressError)
_OF_TRAINING = (
    "accelerate",
    "matplotlib",
    "msgspec",
    "rouge_score",
    "sacrebleu",
    "scipy",
    "sklearn",
    "tensorboard",
    "threadpoolctl",
    "transformers",
)
_OF_ENCODING = ("PIL", "filelock", "onnxscript", "urllib3")
EXTRAS: Mapping[str, str] = dict.fromkeys(_OF_TRAINING, "train") | dict.fromkeys(_OF_ENCODING, "encode")
"""Modules that offline commands import, and the extra that installs them."""


class UsageError(typer.BadParameter):
    """A mistake in the options or settings that typer cannot see; the message names the remedy."""

    def format_message(self) -> str:
        return self.message


def failure_of(error: Exception) -> tuple[int, str] | None:
    """The exit status and the line to print; None for an error that is a bug."""
    if isinstance(error, typer.TyperException):
        return error.exit_code, _usage(error)
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            return None
        return FAILURE, f"{error}; this command needs the extra {extra}: pip install 'vip5-serve[{extra}]'"
    if isinstance(error, (Vip5Error, FeatureCacheError, OSError)):
        return WRONG_USAGE if isinstance(error, _USAGE_ERRORS) else FAILURE, _one_line(str(error))
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
