"""Runs a notebook's cells in order, without Jupyter, and keeps what they print and draw in the file.

python examples/notebook/record.py examples/notebook/demonstration.ipynb
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("MPLBACKEND", "Agg")


class Output(NamedTuple):
    """What a cell printed, and what it drew as PNG."""

    text: str
    pictures: tuple[bytes, ...]


def code_of(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells of code, in order."""
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def run_cells(notebook: dict[str, Any], folder: Path) -> list[Output]:
    """Run all cells of code in one namespace and in this folder, as Jupyter does."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    with contextlib.chdir(folder):
        for number, cell in enumerate(code_of(notebook), start=1):
            printed = io.StringIO()
            code = compile("".join(cell["source"]), f"cell {number}", "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)  # noqa: S102  # that is what a notebook is for
            outputs.append(Output(printed.getvalue(), tuple(_drawn())))
    return outputs


def shown_in(cell: dict[str, Any]) -> Output:
    """What is kept in a cell."""
    texts = ["".join(each["text"]) for each in cell["outputs"] if each["output_type"] == "stream"]
    drawn = [each["data"]["image/png"] for each in cell["outputs"] if each["output_type"] == "display_data"]
    return Output("".join(texts), tuple(base64.b64decode(picture) for picture in drawn))


def _drawn() -> Iterator[bytes]:
    """The open figures, which are closed, as Jupyter does at the end of a cell."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    from matplotlib import pyplot as plt  # noqa: PLC0415  # only if a cell has imported it

    for number in plt.get_fignums():
        file = io.BytesIO()
        plt.figure(number).savefig(file, format="png", dpi=80, metadata={"Software": None})
        yield file.getvalue()
    plt.close("all")


def _kept(output: Output) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    if output.text:
        kept.append({"output_type": "stream", "name": "stdout", "text": output.text.splitlines(keepends=True)})
    for picture in output.pictures:
        data = {"image/png": base64.b64encode(picture).decode()}
        kept.append({"output_type": "display_data", "data": data, "metadata": {}})
    return kept


def main(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    outputs = run_cells(notebook, path.parent)
    for number, (cell, output) in enumerate(zip(code_of(notebook), outputs, strict=True), start=1):
        cell["execution_count"] = number
        cell["outputs"] = _kept(output)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
