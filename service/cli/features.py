"""`vip5 features`: image embeddings in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from service.cli import encoding
from service.cli.feature_target import signing_of_environment, target_of, with_redis
from service.cli.options import Domain, input_file, input_folder
from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    from feature_cache.remote.link import Link

app = typer.Typer(help="Make image embeddings, load them into Redis, and check them.", no_args_is_help=True)
app.add_typer(encoding.app)

RedisUrl = Annotated[
    str,
    typer.Option(
        envvar="VIP5_REDIS_URL",
        help="redis://, rediss://, unix://, redis+sentinel://host,…/service or redis+cluster://host,…; user and "
        "password may be set as VIP5_REDIS_USERNAME and VIP5_REDIS_PASSWORD instead.",
        show_default=False,
    ),
]
OwnBundle = Annotated[Path | None, input_folder("The domain's bundle, which names its encoder.")]
Encoder = Annotated[str | None, typer.Option(help="The image encoder that made the embeddings, if no bundle is given.")]
FeatureFilePath = Annotated[
    Path | None,
    input_file("A file that vip5 features encode wrote.", default="the embeddings in --bundle"),
]


@app.command(epilog="Example: vip5 features load --bundle bundles/shop --domain toys --redis-url redis://localhost")
def load(
    domain: Domain,
    redis_url: RedisUrl,
    bundle: OwnBundle = None,
    features: FeatureFilePath = None,
    encoder: Encoder = None,
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="Type of the stored numbers; float32 takes twice the memory.")
    ] = "float16",
    grace_s: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to keep older versions after the switch, which services take a moment to see."
        ),
    ] = 2.0,
) -> None:
    """Load a domain's embeddings as a new version, and switch to it when it is complete.

    Services read the old version until then; a load that is interrupted leaves it in place.
    """
    from feature_cache.remote.loading import LoadOptions
    from feature_cache.remote.loading import load as load_all
    from feature_cache.remote.memory import advice

    target = target_of(domain, bundle, encoder, features)
    source = target.require_source()
    options = LoadOptions(dtype, grace_s, signing_of_environment())

    async def work(link: Link) -> None:
        with progress_bar() as report:
            loaded = await load_all(link, target.space, source, options, report)
        version = loaded.edition.version
        typer.echo(
            f"loaded {len(source.item_ids)} embeddings of {domain} by {target.space.encoder} as version {version}"
        )
        if target.notice is not None:
            typer.echo(target.notice, err=True)
        if loaded.num_carried_over:
            typer.echo(f"carried over {loaded.num_carried_over} items that were put during the load")
        if loaded.num_lost:
            typer.echo(f"could not carry over {loaded.num_lost} items that were put during the load; put them again")
        if loaded.dropped:
            typer.echo(f"dropped {', '.join(loaded.dropped)}")
        if warning := await advice(link, loaded.edition):
            typer.echo(warning, err=True)

    with_redis(redis_url, work)


@app.command(epilog="Example: vip5 features verify --bundle bundles/shop --domain toys --redis-url redis://localhost")
def verify(
    domain: Domain,
    redis_url: RedisUrl,
    bundle: OwnBundle = None,
    features: FeatureFilePath = None,
    encoder: Encoder = None,
    sample: Annotated[int, typer.Option(min=0, help="Number of items to compare with the source.")] = 1000,
) -> None:
    """Check every value in Redis and compare a sample with the source; exits 1 if something is wrong."""
    from feature_cache.errors import FeatureValueError
    from feature_cache.remote.verification import Verified
    from feature_cache.remote.verification import verify as verify_all

    target = target_of(domain, bundle, encoder, features)
    signing = signing_of_environment()

    async def work(link: Link) -> Verified:
        space = await target.find_space(link)
        with progress_bar() as report:
            return await verify_all(link, space, target.source, sample, report, signing)

    found = with_redis(redis_url, work)
    if found.faults:
        raise FeatureValueError(
            f"version {found.edition.version}: {'; '.join(found.faults)}. Load the embeddings again"
        )
    typer.echo(
        f"ok: version {found.edition.version} holds {found.num_items} embeddings of {domain}, {found.num_put} of "
        f"them put since the load; {found.num_compared} compared with the source"
    )


@app.command(
    epilog="Example: vip5 features put --domain toys --encoder vitb32 --item-id B00X --features B00X.npy",
)
def put(
    domain: Domain,
    redis_url: RedisUrl,
    item_id: Annotated[str, typer.Option(help="The shop's id of the item.", show_default=False)],
    features: Annotated[Path, input_file("The item's embedding, a .npy file.")],
    bundle: OwnBundle = None,
    encoder: Encoder = None,
) -> None:
    """Add or replace the embedding of one item; services use it within their refresh time."""
    import numpy as np

    from feature_cache.errors import FeatureValueError
    from feature_cache.remote.changes import put as put_all

    target = target_of(domain, bundle, encoder)
    try:
        with features.open("rb") as file:
            row = np.load(file, allow_pickle=False).astype(np.float32).reshape(1, -1)
    except Exception as error:  # numpy parses headers as Python
        raise FeatureValueError(f"{features} is not a .npy file of numbers that can be read: {error}") from error

    signing = signing_of_environment()

    async def work(link: Link) -> str:
        edition = await put_all(link, await target.find_space(link), [item_id], row, signing)
        return edition.version

    typer.echo(f"put {item_id} into version {with_redis(redis_url, work)}")


@app.command(epilog="Example: vip5 features versions --domain toys --encoder vitb32 --redis-url redis://localhost")
def versions(domain: Domain, redis_url: RedisUrl, bundle: OwnBundle = None, encoder: Encoder = None) -> None:
    """List the versions of a domain's embeddings in Redis, incomplete ones included."""
    from feature_cache.remote.versions import list_versions

    target = target_of(domain, bundle, encoder)
    table = Table(
        *(Column(name, overflow="fold") for name in ("version", "state", "items", "type", "width", "started"))
    )
    for each in with_redis(redis_url, lambda link: list_versions(link, target.space)):
        state = "current" if each.is_current else each.state
        edition = each.edition
        sizes = (str(edition.num_items), edition.dtype, str(edition.space.dim)) if edition else ("?", "?", "?")
        table.add_row(each.version, state, *sizes, each.started_at)
    Console().print(table)


@app.command(epilog="Example: vip5 features drop --domain toys --encoder vitb32 --version 20260101T120000-1f2e")
def drop(
    domain: Domain,
    redis_url: RedisUrl,
    version: Annotated[str, typer.Option(help="A version that vip5 features versions lists.", show_default=False)],
    bundle: OwnBundle = None,
    encoder: Encoder = None,
) -> None:
    """Remove a version from Redis. Without the current one, services have no embeddings until another is loaded."""
    from feature_cache.remote.versions import drop_version

    target = target_of(domain, bundle, encoder)
    with_redis(redis_url, lambda link: drop_version(link, target.space, version))
    typer.echo(f"dropped {version}")
