"""Loads a bundle: the engine and the domains that it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.bundle.bundle import Opening, open_bundle
from model.bundle.domain_files import DomainFiles, Foundation
from model.decoding.trie_arena import TrieArena
from model.devices import require_device
from model.engine.captured.options import read_buckets
from model.engine.choice import make_engine
from model.engine.names import EngineName
from model.engine.protocol import Engine
from model.planning.domain import ServedDomain


@dataclass(frozen=True, eq=False)
class Runtime:
    """A loaded bundle."""

    engine: Engine
    domains: dict[str, ServedDomain]
    bundle_hash: str
    foundation: Foundation
    files: dict[str, DomainFiles]  # by domain; a catalog that grows needs its adapter again

    @property
    def feature_files(self) -> dict[str, Path]:
        """Paths of the embedded feature stores, by domain."""
        return {name: files.features_path for name, files in self.files.items() if files.features_path is not None}


def load_runtime(
    root: Path,
    *,
    device: str = "cpu",
    num_threads: int | None = None,
    engine: EngineName = "auto",
    buckets: Path | None = None,
    opening: Opening | None = None,
) -> Runtime:
    """Verify a bundle and load it onto a device.

    `num_threads` sets torch's number of threads in this process. `buckets` is a file of shapes written by
    `vip5 bench --out`, for searches captured on a GPU. `opening` says who must have signed the bundle, and where
    indexes are kept.
    Raises BundleError kinds for an invalid bundle, and EngineError for a device or engine that is not available.
    """
    target = require_device(device)
    shapes = None if buckets is None else read_buckets(buckets)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    opening = opening or Opening()
    bundle = open_bundle(root, opening.trusted, opening.indexes)
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
