"""Keeps folders of this machine out of answers: messages name files for the operator, and clients read some of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from service.schemas.problem import Problem


class PrivatePaths:
    """The folders that the settings name. In answers, what lies in them is called by its name alone."""

    def __init__(self, folders: Iterable[Path]) -> None:
        spellings = {form for each in folders for form in (os.path.abspath(each), os.path.realpath(each))}  # noqa: PTH100  # `..` and links as written, and resolved
        longest_first = sorted(spellings - {os.sep}, key=len, reverse=True)
        # A folder ends at a slash, or where no name goes on: /data is not in /data2.
        self._folders = re.compile("|".join(rf"{re.escape(each)}(?:/|(?![\w./-]))" for each in longest_first) or "(?!)")

    def hide(self, text: str) -> str:
        return self._folders.sub(lambda found: "" if found[0].endswith("/") else Path(found[0]).name, text)

    def hidden_in(self, problem: Problem) -> Problem:
        errors = problem.errors and [
            error.model_copy(update={"message": self.hide(error.message)}) for error in problem.errors
        ]
        return problem.model_copy(update={"detail": self.hide(problem.detail), "errors": errors})
