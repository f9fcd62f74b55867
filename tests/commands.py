"""`vip5` in this process, as a person runs it."""

from __future__ import annotations

import pytest

from service.cli import main


def run(*arguments: object) -> int:
    """Exit status of `vip5` with these arguments."""
    with pytest.raises(SystemExit) as exited:
        main([str(argument) for argument in arguments])
    return int(exited.value.code or 0)
