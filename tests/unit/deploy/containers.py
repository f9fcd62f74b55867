"""The container files as tests read them."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
OVERRIDES = [ROOT / "deploy/compose" / name for name in ("api-keys.yml", "cuda.yml")]
SECRETS = ("REDIS_PASSWORD", "VIP5_ADMIN_TOKEN", "GRAFANA_ADMIN_PASSWORD", "LOAD_API_KEY")


@dataclass(frozen=True)
class Instruction:
    """One instruction of the Dockerfile, its lines joined."""

    stage: str
    name: str
    value: str


def dockerfile() -> list[Instruction]:
    """All instructions."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stage, found = "", []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            stage = value.partition(" AS ")[2]
        found.append(Instruction(stage, name, value))
    return found


def of_stage(stage: str) -> list[Instruction]:
    """What makes a stage, the stages that it stands on included, in order."""
    own = [each for each in dockerfile() if each.stage == stage]
    base = own[0].value.partition(" AS ")[0]
    return (of_stage(base) if any(each.stage == base for each in dockerfile()) else []) + own


def environment_of(stage: str) -> dict[str, str]:
    pairs = [pair for each in of_stage(stage) if each.name == "ENV" for pair in each.value.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def is_let_in(path: str) -> bool:
    """Whether .dockerignore lets a file into the build; the last rule that fits it, or a folder above it, decides."""
    let_in = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.removeprefix("!").removeprefix("**/")
        if line.startswith("#") or not rule:
            continue
        parts = Path(path).parts
        heads = ["/".join(parts[: length + 1]) for length in range(len(parts))]
        names = list(parts) if line.startswith("**/") else heads
        if any(fnmatch.fnmatch(name, rule) for name in names if name.count("/") == rule.count("/")):
            let_in = line.startswith("!")
    return let_in


def compose(file: Path = COMPOSE, **variables: str) -> dict[str, Any]:
    """A compose file with its variables filled in: secrets by their own names, others by what stands beside them."""

    def fill(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"] if match["default"] is not None else match["if_unset"]
        if default is None:
            assert name in SECRETS, f"{name} has no default and is no secret"
            return variables.get(name, name)
        return variables.get(name, default)

    text = re.sub(
        r"(?<!\$)\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|-(?P<if_unset>[^}]*)|:\?[^}]*)\}", fill, file.read_text()
    )
    document: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return document


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found
