"""From a bundle on disk to an engine and the domains that it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.bundle.bundle import DomainFiles, Foundation, open_bundle
from model.decoding.trie import TrieArena
from model.engine.captured.options import read_buckets
from model.engine.choice import make_engine
from model.engine.names import EngineName
from model.engine.protocol import Engine
from model.errors import EngineError
from model.planning.domain import ServedDomain


@dataclass(frozen=True, eq=False)
class Runtime:
    """A loaded bundle, ready to answer."""

    engine: Engine
    domains: dict[str, ServedDomain]
    bundle_hash: str
    foundation: Foundation
    files: dict[str, DomainFiles]  # by domain; adapters are needed again where a catalog grows

    @property
    def feature_files(self) -> dict[str, Path]:
        """Embedded feature stores by domain, for those that have one."""
        return {name: files.features_path for name, files in self.files.items() if files.features_path is not None}


def load_runtime(
    root: Path,
    *,
    device: str = "cpu",
    num_threads: int | None = None,
    engine: EngineName = "auto",
    buckets: Path | None = None,
) -> Runtime:
    """Verify and load a bundle onto a device.

    `num_threads` sets how many threads the model computes with in this process; `buckets` is a file of shapes that
    `vip5 bench --out` made, for searches captured on a GPU. Raises BundleError kinds for a bundle that breaks a rule,
    and EngineError for a device or an engine that is not there.
    """
    target = _device(device)
    shapes = None if buckets is None else read_buckets(buckets)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    bundle = open_bundle(root)
    names = sorted(bundle.domains)
    domains = {
        name: ServedDomain.of(slot, bundle.domains[name], bundle.tokenizer, bundle.hash)
        for slot, name in enumerate(names)
    }
    arena = TrieArena.of([domains[name].trie for name in names], target)
    return Runtime(
        engine=make_engine(engine, bundle.network(), arena, target, buckets=shapes),
        domains=domains,
        bundle_hash=bundle.hash,
        foundation=bundle.foundation,
        files=bundle.domains,
    )


def _device(name: str) -> torch.device:
    try:
        return torch.zeros(0, device=name).device
    except (AssertionError, RuntimeError, NotImplementedError) as error:  # torch has one for each reason
        raise EngineError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); take cpu, or install a torch build "
            "and a driver that know it"
        ) from error
