"""Joins the metrics of replicas into one text, with the replica as a label."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(\{)?")


def joined(texts: Iterable[tuple[str, str]]) -> str:
    """Texts in Prometheus' format by replica, as one text in which every sample has the label `replica`."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for replica, text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, replica))
    families = [*heads, *(family for family in samples if family not in heads)]
    return "".join(f"{line}\n" for family in families for line in (*heads.get(family, ()), *samples.get(family, ())))


def _labelled(line: str, replica: str) -> str:
    def label(match: re.Match[str]) -> str:
        has_others = match[2] is not None
        return f'{match[1]}{{replica="{replica}"' + ("," if has_others else "}")

    return _SAMPLE.sub(label, line, count=1)
