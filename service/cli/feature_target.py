"""Which embeddings a command of `vip5 features` is about, and the Redis that holds them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from service.cli.failures import UsageError

if TYPE_CHECKING:
    from feature_cache.remote.link import Link
    from feature_cache.signing import Signing
    from feature_cache.store import FeatureSpace
    from model.bundle.catalog import Catalog
    from model.bundle.features import ItemFeatures

CONNECT_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class FeatureTarget:
    """The embeddings of one domain by one encoder; the width is 0 where only Redis knows it."""

    space: FeatureSpace
    source: ItemFeatures | None
    notice: str | None = None  # how the embeddings and the bundle's catalog meet

    def require_source(self) -> ItemFeatures:
        """Raises UsageError if no option names a file of embeddings."""
        if self.source is None:
            raise UsageError("give --features, or a --bundle that holds the domain's embeddings")
        return self.source

    async def find_space(self, link: Link) -> FeatureSpace:
        """The space with its width, if need be as Redis knows it."""
        from feature_cache.remote.versions import find_dim
        from feature_cache.store import FeatureSpace

        domain, encoder = self.space.domain, self.space.encoder
        return FeatureSpace(domain, encoder, self.space.dim or await find_dim(link, domain, encoder))


def target_of(domain: str, bundle: Path | None, encoder: str | None, features: Path | None = None) -> FeatureTarget:
    """What the options name. Raises UsageError for options that contradict or lack each other."""
    from feature_cache.errors import FeatureValueError
    from feature_cache.store import FeatureSpace
    from model.bundle.features import load_features

    dim, catalog, notice, own = 0, None, None, None
    if bundle is not None:
        if encoder is not None:
            raise UsageError("--bundle names the encoder; leave --encoder out")
        encoder, dim, own, catalog = _of_bundle(bundle, domain)
    if encoder is None:
        raise UsageError("give --bundle, or the name of the encoder with --encoder")
    source = own if features is None else load_features(features, str(features))
    if source is not None and source.encoder not in {None, encoder}:
        raise FeatureValueError(
            f"{features or bundle}: the embeddings were made by {source.encoder}, the model was tuned with {encoder}; "
            "encode the pictures with the latter"
        )
    if source is not None and catalog is not None:
        notice, source = str(source.join(catalog)), source.renamed(catalog)
    return FeatureTarget(FeatureSpace(domain, encoder, dim or (source.dim if source else 0)), source, notice)


def _of_bundle(root: Path, domain: str) -> tuple[str, int, ItemFeatures | None, Catalog]:
    """Verify a bundle's files; return the encoder, width, embeddings and catalog of a domain."""
    from model.bundle.catalog import Catalog
    from model.bundle.documents import parse_domain_spec
    from model.bundle.features import open_features
    from model.bundle.layout import CATALOG, DOMAIN_SPEC, FEATURES, domain_file
    from model.bundle.verified_files import VerifiedFiles
    from model.errors import UnknownDomainError

    files = VerifiedFiles(root)
    if domain not in files.manifest.domains:
        raise UnknownDomainError(f"{root} has no domain {domain!r}; it has {', '.join(files.manifest.domains)}")
    spec = parse_domain_spec(files.read(domain_file(domain, DOMAIN_SPEC)), domain)
    if spec.encoder is None:
        raise UsageError(f"the model of --domain {domain} reads no images")
    path, own = domain_file(domain, FEATURES), None
    catalog = Catalog.parse(files.read(domain_file(domain, CATALOG)), f"the catalog of {domain}")
    if path in files:
        file, verify = files.open(path)
        own = open_features(file, str(root / path), spec.encoder.dim, verify)
    files.verify_rest()
    return spec.encoder.name, spec.encoder.dim, own, catalog


def signing_of_environment() -> Signing | None:
    """What VIP5_SIGNING_SECRET signs with, if it is set. Raises UsageError."""
    from service.settings.loading import SettingsError, load_signing

    try:
        return load_signing()
    except SettingsError as error:
        raise UsageError(str(error)) from error


def with_redis(url: str, work: Callable[[Link], Awaitable[T]]) -> T:
    """The result of `work` over a connection. Raises RedisAddressError for a URL that names no Redis."""
    from feature_cache.remote.address import RedisAddress
    from feature_cache.remote.link import linked

    address = RedisAddress.parse(url, os.environ.get("VIP5_REDIS_USERNAME"), os.environ.get("VIP5_REDIS_PASSWORD"))

    async def run() -> T:
        async with linked(address, CONNECT_S) as link:
            return await work(link)

    return asyncio.run(run())
