"""`vip5 features`: image embeddings into Redis, and looking at what is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from service.cli import encoding
from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    from feature_cache.remote.link import Link
    from feature_cache.store import FeatureSpace
    from model.bundle.features import ItemFeatures


CONNECT_S = 5.0

app = typer.Typer(help="Make image embeddings, put them into Redis, and check them.", no_args_is_help=True)
app.add_typer(encoding.app)

RedisUrl = Annotated[
    str,
    typer.Option(
        envvar="VIP5_REDIS_URL",
        help="redis://, rediss://, unix://, redis+sentinel://host,…/service or redis+cluster://host,…; user and "
        "password may also be given as VIP5_REDIS_USERNAME and VIP5_REDIS_PASSWORD.",
        show_default=False,
    ),
]
DomainName = Annotated[str, typer.Option(help="The domain whose items these are.", show_default=False)]
BundlePath = Annotated[
    Path | None,
    typer.Option(help="The domain's bundle, which names its encoder.", exists=True, file_okay=False),
]
EncoderName = Annotated[
    str | None, typer.Option(help="The image encoder that made the embeddings, where there is no bundle.")
]
FeaturesPath = Annotated[
    Path | None,
    typer.Option(help="features.safetensors; left out: the bundle's.", exists=True, dir_okay=False),
]


@app.command(epilog="Example: vip5 features load --bundle bundles/shop --domain toys --redis-url redis://localhost")
def load(
    domain: DomainName,
    redis_url: RedisUrl,
    bundle: BundlePath = None,
    features: FeaturesPath = None,
    encoder: EncoderName = None,
    dtype: Annotated[str, typer.Option(help="float16, or float32 for twice the memory.")] = "float16",
    grace_s: Annotated[
        float, typer.Option(min=0, help="How long older versions stay after the switch; services need a moment.")
    ] = 2.0,
) -> None:
    """Load a domain's embeddings under a new version, and switch to it once it is complete.

    Services read the old version until then, and a load that is killed leaves it in place.
    """
    from feature_cache.codec import DTYPES
    from feature_cache.remote.loading import LoadOptions
    from feature_cache.remote.loading import load as load_all
    from feature_cache.remote.memory import advice

    chosen = next((each for each in DTYPES if each == dtype), None)
    if chosen is None:
        raise typer.BadParameter(f"{dtype!r} is none of {', '.join(DTYPES)}", param_hint="--dtype")
    target = _target(bundle, domain, encoder, features)
    source = target.require_source()

    async def run() -> None:
        async with _redis(redis_url) as link:
            with progress_bar() as report:
                loaded = await load_all(link, target.space, source, LoadOptions(chosen, grace_s), report)
            typer.echo(
                f"loaded {len(source.item_ids)} embeddings of {domain} by {target.space.encoder} as version "
                f"{loaded.edition.version}"
            )
            if loaded.num_carried_over:
                typer.echo(f"carried over {loaded.num_carried_over} items that were put meanwhile")
            if loaded.num_lost:
                typer.echo(f"could not carry over {loaded.num_lost} items that were put meanwhile; put them again")
            if loaded.dropped:
                typer.echo(f"dropped {', '.join(loaded.dropped)}")
            if text := await advice(link, loaded.edition):
                typer.echo(text, err=True)

    asyncio.run(run())


@app.command(epilog="Example: vip5 features verify --bundle bundles/shop --domain toys --redis-url redis://localhost")
def verify(
    domain: DomainName,
    redis_url: RedisUrl,
    bundle: BundlePath = None,
    features: FeaturesPath = None,
    encoder: EncoderName = None,
    sample: Annotated[int, typer.Option(min=0, help="How many items to compare with the source.")] = 1000,
) -> None:
    """Check every value in Redis and compare a sample with the source; exits 1 if something is wrong."""
    from feature_cache.errors import FeatureValueError
    from feature_cache.remote.verification import verify as verify_all

    target = _target(bundle, domain, encoder, features)

    async def run() -> None:
        async with _redis(redis_url) as link:
            space = await target.find_space(link)
            with progress_bar() as report:
                found = await verify_all(link, space, target.source, sample, report)
        if found.faults:
            raise FeatureValueError(f"version {found.edition.version}: {'; '.join(found.faults)}. Load them anew")
        typer.echo(
            f"ok: version {found.edition.version} holds {found.num_items} embeddings of {domain}, {found.num_put} of "
            f"them put since the load; {found.num_compared} compared with the source"
        )

    asyncio.run(run())


@app.command(epilog="Example: vip5 features put --domain toys --encoder vitb32 --item-id B00X --feature B00X.npy")
def put(
    domain: DomainName,
    redis_url: RedisUrl,
    item_id: Annotated[str, typer.Option(help="The shop's own id of the item.", show_default=False)],
    feature: Annotated[
        Path, typer.Option(help="Its embedding, a .npy file.", exists=True, dir_okay=False, show_default=False)
    ],
    bundle: BundlePath = None,
    encoder: EncoderName = None,
) -> None:
    """Put one item's embedding, new or changed; services use it within their refresh time."""
    import numpy as np

    from feature_cache.errors import FeatureValueError
    from feature_cache.remote.changes import put as put_all

    target = _target(bundle, domain, encoder, None)
    try:
        row = np.load(feature, allow_pickle=False).astype(np.float32).reshape(1, -1)
    except (OSError, ValueError, EOFError) as error:
        raise FeatureValueError(f"{feature} is no array of numbers that can be read: {error}") from error

    async def run() -> None:
        async with _redis(redis_url) as link:
            edition = await put_all(link, await target.find_space(link), [item_id], row)
        typer.echo(f"put {item_id} into version {edition.version}")

    asyncio.run(run())


@app.command(epilog="Example: vip5 features versions --domain toys --encoder vitb32 --redis-url redis://localhost")
def versions(domain: DomainName, redis_url: RedisUrl, bundle: BundlePath = None, encoder: EncoderName = None) -> None:
    """List the versions of a domain's embeddings in Redis, half-loaded ones included."""
    from feature_cache.remote.versions import list_versions

    target = _target(bundle, domain, encoder, None)

    async def run() -> None:
        async with _redis(redis_url) as link:
            found = await list_versions(link, target.space)
        table = Table(
            *(Column(name, overflow="fold") for name in ("version", "state", "items", "type", "width", "started"))
        )
        for each in found:
            state = "current" if each.is_current else each.state
            edition = each.edition
            sizes = (str(edition.num_items), edition.dtype, str(edition.space.dim)) if edition else ("?", "?", "?")
            table.add_row(each.version, state, *sizes, each.started_at)
        Console().print(table)

    asyncio.run(run())


@app.command(epilog="Example: vip5 features drop --domain toys --encoder vitb32 --version 20260101T120000-1f2e")
def drop(
    domain: DomainName,
    redis_url: RedisUrl,
    version: Annotated[str, typer.Option(help="As `vip5 features versions` names it.", show_default=False)],
    bundle: BundlePath = None,
    encoder: EncoderName = None,
) -> None:
    """Remove a version from Redis. Where it is the current one, services are left without until another is loaded."""
    from feature_cache.remote.versions import drop_version

    target = _target(bundle, domain, encoder, None)

    async def run() -> None:
        async with _redis(redis_url) as link:
            await drop_version(link, target.space, version)
        typer.echo(f"dropped {version}")

    asyncio.run(run())


@dataclass(frozen=True)
class _Target:
    """What a command is about; the width is 0 where only Redis knows it."""

    space: FeatureSpace
    source: ItemFeatures | None

    def require_source(self) -> ItemFeatures:
        if self.source is None:
            raise typer.BadParameter("give --features, or a --bundle that holds the domain's embeddings")
        return self.source

    async def find_space(self, link: Link) -> FeatureSpace:
        from feature_cache.remote.versions import find_dim
        from feature_cache.store import FeatureSpace

        domain, encoder = self.space.domain, self.space.encoder
        return FeatureSpace(domain, encoder, self.space.dim or await find_dim(link, domain, encoder))


def _target(bundle: Path | None, domain: str, encoder: str | None, features: Path | None) -> _Target:
    from feature_cache.errors import FeatureValueError
    from feature_cache.store import FeatureSpace
    from model.bundle.features import load_features

    dim = 0
    if bundle is not None:
        if encoder is not None:
            raise typer.BadParameter("the bundle names the encoder; leave --encoder out", param_hint="--encoder")
        encoder, dim, own = _of_bundle(bundle, domain)
        features = features or own
    if encoder is None:
        raise typer.BadParameter("give --bundle, or the name of the encoder", param_hint="--encoder")
    source = None if features is None else load_features(features, str(features))
    if source is not None and source.encoder not in {None, encoder}:
        raise FeatureValueError(
            f"{features}: the embeddings were made by {source.encoder}, the model was tuned with {encoder}; encode the"
            " pictures with the latter"
        )
    return _Target(FeatureSpace(domain, encoder, dim or (source.dim if source else 0)), source)


def _of_bundle(root: Path, domain: str) -> tuple[str, int, Path | None]:
    """Encoder, width and embeddings of a domain, after its bundle's files were verified."""
    from model.bundle.documents import read_domain_spec
    from model.bundle.layout import DOMAIN_SPEC, FEATURES, domain_file
    from model.bundle.manifest import verify_files

    manifest = verify_files(root)
    if domain not in manifest.domains:
        raise typer.BadParameter(
            f"{root} has no domain {domain!r}; it has {', '.join(manifest.domains)}", param_hint="--domain"
        )
    spec = read_domain_spec(root / domain_file(domain, DOMAIN_SPEC), domain)
    if spec.encoder is None:
        raise typer.BadParameter(f"the model of {domain!r} reads no images", param_hint="--domain")
    path = domain_file(domain, FEATURES)
    return spec.encoder.name, spec.encoder.dim, root / path if path in manifest.files else None


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[Link]:
    from feature_cache.errors import RedisAddressError
    from feature_cache.remote.address import RedisAddress
    from feature_cache.remote.link import linked

    try:
        address = RedisAddress.parse(url, os.environ.get("VIP5_REDIS_USERNAME"), os.environ.get("VIP5_REDIS_PASSWORD"))
    except RedisAddressError as error:
        raise typer.BadParameter(str(error), param_hint="--redis-url") from error
    async with linked(address, CONNECT_S) as link:
        yield link
