"""Where the domains are that replicas may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.bundle.exchange.store import BUNDLE_HASH
from model.bundle.manifest import read_manifest
from model.errors import Vip5Error
from service.ray.options import DomainPlace
from service.versions.bundles import find_bundle
from service.versions.state import OWN_BUNDLE, VersionRef


@dataclass(frozen=True)
class Directory:
    """What is served of each domain, and what is wrong with domains that cannot be found."""

    versions: Mapping[str, VersionRef] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def directory_of(
    given: Mapping[str, Mapping[str, Any]], own_hash: str, root: Path | None, before: Directory
) -> Directory:
    """The domains as they are given; a folder's bundle is the one that is there now.

    A domain that cannot be found is served as `before`, if it was: a mistake about one is no reason to stop the others.
    """
    versions: dict[str, VersionRef] = {}
    problems: dict[str, str] = {}
    for name, fields in given.items():
        try:
            versions[name] = _version_of(name, DomainPlace.model_validate(fields), own_hash, root)
        except (Vip5Error, ValidationError, OSError) as error:
            problems[name] = f"the domain {name} is given wrongly: {error}"
            if name in before.versions:
                versions[name] = before.versions[name]
    return Directory(versions, problems)


def _version_of(name: str, place: DomainPlace, own_hash: str, root: Path | None) -> VersionRef:
    domain = place.domain or name
    if place.bundle == OWN_BUNDLE:
        return VersionRef(OWN_BUNDLE, own_hash, domain)
    if BUNDLE_HASH.fullmatch(place.bundle):
        return VersionRef(place.bundle, place.bundle, domain)
    return VersionRef(place.bundle, read_manifest(find_bundle(root, place.bundle)).hash, domain)
