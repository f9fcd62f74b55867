"""The notebook's cells run in order, and print and draw what the file shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.notebook.record import code_of, run_cells, shown_in
from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "notebook" / "demonstration.ipynb"


def test_the_notebook_shows_what_its_cells_print() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    outputs = run_cells(notebook, NOTEBOOK.parent)
    shown = [shown_in(cell) for cell in code_of(notebook)]
    assert [output.text for output in outputs] == [output.text for output in shown]
    assert [len(output.pictures) for output in outputs] == [len(output.pictures) for output in shown]
    assert sum(len(output.pictures) for output in outputs) == 1
    assert all(picture.startswith(b"\x89PNG") for output in outputs for picture in output.pictures)


def test_a_cell_that_fails_ends_the_notebook(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": [line], "outputs": []} for line in ("a = 1", "print(a)", "print(b)")]
    assert [output.text for output in run_cells({"cells": cells[:2]}, tmp_path)] == ["", "1\n"]
    with pytest.raises(NameError):
        run_cells({"cells": cells}, tmp_path)


def test_the_notebook_is_of_a_version_that_jupyter_reads() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
