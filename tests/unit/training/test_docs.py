"""The examples of docs/training.md are run files, and name every key; the schemas for editors are those of the code."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs
import pytest

from model.training.config import RunFile, read_run
from model.training.run_documents import json_schema
from model.training.sweep import read_sweep
from model.training.sweep_file import SweepFile
from tests.conftest import ROOT

DOCS = ROOT / "docs"
BLOCKS = re.findall(
    r"^```toml\n(.*?)^```", (DOCS / "training.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
RUNS = [block for block in BLOCKS if "variants" not in block]
SWEEPS = [block for block in BLOCKS if "variants" in block]
SCHEMAS = {"run.schema.json": RunFile, "sweep.schema.json": SweepFile}


def keys_of(value: object, kind: str, schema: dict[str, Any]) -> set[tuple[str, str]]:
    """Pairs of a structure's name and a key that an example shows."""
    found: set[tuple[str, str]] = set()
    for key, inner in value.items() if isinstance(value, dict) else ():
        part = schema["$defs"][kind]["properties"][key]
        found.add((kind, key))
        references = re.findall(r"#/\$defs/(\w+)", json.dumps({name: part[name] for name in part if name != "default"}))
        for each in inner if isinstance(inner, list) else [inner]:
            if references:
                found |= keys_of(each, references[0], schema)
    return found


def test_every_example_is_read_and_together_they_show_every_key(tmp_path: Path) -> None:
    assert len(RUNS) == 3
    schema = json.loads(json_schema(RunFile))
    shown = set()
    for number, block in enumerate(RUNS):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        read_run(path)
        shown |= keys_of(tomllib.loads(block), "RunFile", schema)
    known = {(kind, key) for kind, each in schema["$defs"].items() for key in each["properties"]}
    assert shown == known


def test_the_example_of_a_sweep_is_read_over_the_example_of_a_run(tmp_path: Path) -> None:
    (block,) = SWEEPS
    (tmp_path / "toys.toml").write_text(RUNS[0])
    (tmp_path / "sweep.toml").write_text(block)
    assert len(read_sweep(tmp_path / "sweep.toml").runs) == 3


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_for_editors_are_those_of_the_code(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == json_schema(SCHEMAS[name]), (
        f"renew it with vip5 … --schema > docs/{name}"
    )


def test_the_schemas_accept_the_examples_and_the_demonstration_s_files_and_refuse_a_misspelling() -> None:
    own = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "demo" / "runs").glob("*.toml"))]
    assert all(text.startswith("#:schema ../../docs/run.schema.json\n") for text in own)
    schema = json.loads(json_schema(RunFile))
    for text in [*RUNS, *own]:
        jsonschema.validate(tomllib.loads(text), schema)
    own_sweep = (ROOT / "demo" / "paper-sweep.toml").read_text(encoding="utf-8")
    assert own_sweep.startswith("#:schema ../docs/sweep.schema.json\n")
    for text in (SWEEPS[0], own_sweep):
        jsonschema.validate(tomllib.loads(text), json.loads(json_schema(SweepFile)))
    faults: list[dict[str, object]] = [
        {"optimizer": {}},
        {"prompts": {"tasks": {"ranking": 1}}},
        {"prompts": {"templates": ["A-10"]}},
    ]
    for wrong in faults:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(RUNS[0]) | wrong, schema)
