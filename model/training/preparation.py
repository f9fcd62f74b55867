"""Everything that a run needs, loaded and checked: the network with its starting weights, and the domains' data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer

from model.bundle.bundle import Bundle, open_bundle
from model.bundle.codebook import check_projection
from model.bundle.features import ItemFeatures
from model.bundle.folders import is_free
from model.bundle.importers.features import read_features
from model.bundle.joins import Notice
from model.bundle.layout import MANIFEST, TOKENIZER, DomainSpec, ImageEncoder, PromptDefaults
from model.bundle.manifest import check_domain_name, read_manifest
from model.bundle.shapes import expected_shapes
from model.datasets.dataset import CODEBOOK, DATASET, Dataset
from model.datasets.item_vectors import Weights
from model.datasets.raw_ids import raw_id_warning
from model.errors import ExistsError, TrainingError
from model.network.config import BackboneConfig, DomainLayout
from model.network.network import Vip5Network
from model.network.one_pass import is_causal, make_causal
from model.network.weights import load_backbone, load_domain
from model.prompts.tokenizer import TextTokenizer
from model.training.batches import ImageTable
from model.training.config import DomainData, Run
from model.training.initial_weights import InitialWeights
from model.training.item_embeddings import embed_items
from model.training.sampling import DomainSampler

_CATEGORY_ROWS = 16
_BACKBONE_STREAM = "a backbone from scratch"


@dataclass(frozen=True, eq=False)
class TunedDomain:
    """A domain to be tuned: its data, and its description in the bundle."""

    spec: DomainSpec
    dataset: Dataset
    sampler: DomainSampler
    features: ItemFeatures | None
    images: ImageTable | None
    notices: tuple[str, ...] = ()  # about data that is not used


@dataclass(frozen=True, eq=False)
class Preparation:
    """`network` has the starting weights, on the CPU."""

    run: Run
    config: BackboneConfig  # without the run's dropout
    tokenizer: Tokenizer
    domains: tuple[TunedDomain, ...]
    network: Vip5Network
    start: Bundle | None


def prepare(run: Run, *, replace: bool = False) -> Preparation:
    """Read the starting bundle and the datasets.

    Before any work, raises ExistsError for a result that would replace another without `replace`, and TrainingError,
    DatasetError or BundleError for a run that cannot be done.
    """
    require_free(run, replace=replace)
    _check_inputs(run)
    start = None if run.file.backbone is not None else open_bundle(run.start)
    _check_out(run, start)
    config, tokenizer = _from_scratch(run) if start is None else (start.backbone.config, _tokenizer_of(start))
    domains = tuple(_domain(run, each, start, TextTokenizer(tokenizer), config) for each in run.file.domains)
    network = _network(run, config, domains, start)
    return Preparation(run, config, tokenizer, domains, network, start)


def _network(run: Run, config: BackboneConfig, domains: Sequence[TunedDomain], start: Bundle | None) -> Vip5Network:
    """The network with the run's dropout and the weights that training starts from."""
    layouts = [domain.spec.layout for domain in domains]
    network = Vip5Network(replace(config, dropout_rate=run.file.optimiser.dropout), layouts)
    shape = run.file.backbone
    initial = InitialWeights(config, run.file.seed, 1.0 if shape is None else shape.embedding_std)
    backbone = initial.tensors(expected_shapes(config), _BACKBONE_STREAM) if start is None else start.backbone.weights
    load_backbone(network, backbone)
    _embed_items(run, network, domains)
    for slot, domain in enumerate(domains):
        known = {} if start is None else _known_weights(start, domain.spec.name)
        load_domain(network, slot, initial.domain(domain.spec.name, domain.spec.layout, known))
    if run.file.prompts.targets == "in_one_pass":
        _make_causal(run, network)
    return network


def _embed_items(run: Run, network: Vip5Network, domains: Sequence[TunedDomain]) -> None:
    """Begin tokens of identifiers as vectors of their items, if the run says so."""
    wanted = None if run.file.backbone is None else run.file.backbone.item_embeddings
    if wanted is None:
        return
    weights = Weights(wanted.pictures, wanted.titles, wanted.purchases, wanted.text_columns)
    (domain,) = domains
    with torch.no_grad():
        embed_items(network.shared, domain.dataset, domain.sampler.assembler.identifiers, weights, run.file.seed)


def _make_causal(run: Run, network: Vip5Network) -> None:
    """One pass over a history asks for an encoder that reads only what precedes a token."""
    if run.tunes_backbone:
        make_causal(network)
    elif not is_causal(network):
        raise TrainingError(
            f'{run.places.of("prompts", "targets")}: targets = "in_one_pass" needs a backbone whose encoder reads only '
            f"what precedes a token, and that of {run.start} reads both ways and stays as it is; set tune to "
            "'everything', start from a backbone trained in one pass, or set targets to 'all'"
        )


def replaced_by(run: Run) -> str | None:
    """What the run's result would replace, in words; None if nothing.

    Raises BundleError for a bundle that cannot be read, and TrainingError if `out` is something else.
    """
    for domain in run.file.domains:
        check_domain_name(domain.name)
    if not (run.out / MANIFEST).exists():
        if not is_free(run.out):
            place = run.places.of("out")
            raise TrainingError(
                f"{place}: out is {run.out}, which holds something other than a bundle; name another folder"
            )
        return None
    present = read_manifest(run.out).domains
    if run.tunes_backbone:
        named = f"the domains {', '.join(present)}" if present else "no domains"
        return f"{run.out} exists already, and a run that changes the backbone replaces the whole bundle, with {named}"
    known = [domain.name for domain in run.file.domains if domain.name in present]
    return f"{run.out} has the domain {', '.join(known)} already" if known else None


def require_free(run: Run, *, replace: bool) -> None:
    """Raise ExistsError for a result that would replace another without `replace`, and what `replaced_by` raises."""
    present = replaced_by(run)
    if present is not None and not replace:
        raise ExistsError(f"{present}; name another bundle as out, or give --replace")


def _check_inputs(run: Run) -> None:
    """Raise TrainingError, naming the key, for a folder that is not what its key should name."""
    for number, domain in enumerate(run.file.domains):
        folder = run.path(domain.data)
        if not (folder / DATASET).is_file():
            raise TrainingError(
                f"{run.places.of('domains', number, 'data')}: data of {domain.name}: {folder} has no {DATASET}; create "
                "a dataset with vip5 data prepare, or correct the path"
            )
    if run.file.backbone is None and not (run.start / MANIFEST).is_file():
        key = "out" if run.file.start is None else "start"
        hint = "set start to the bundle to start from" if run.file.start is None else "correct the path"
        raise TrainingError(f"{run.places.of(key)}: {key} is {run.start}, which is no bundle to start from; {hint}")


def _check_out(run: Run, start: Bundle | None) -> None:
    """Refuse a run whose result could not be written, before hours of work rather than after."""
    if run.tunes_backbone or start is None or not (run.out / MANIFEST).exists():
        return
    if run.out.resolve() != start.root.resolve():
        present = open_bundle(run.out).backbone.sha256
        if present != start.backbone.sha256:
            raise TrainingError(
                f"{run.places.of('out')}: {run.out} has a different backbone than {run.start}; set start to the bundle "
                "that out adds to"
            )


def _from_scratch(run: Run) -> tuple[BackboneConfig, Tokenizer]:
    shape = run.file.backbone
    assert shape is not None
    path = run.path(shape.tokenizer)
    path = path / TOKENIZER.name if path.is_dir() else path
    if not path.is_file():
        place = run.places.of("backbone", "tokenizer")
        raise TrainingError(f"{place}: backbone.tokenizer is {path}, which does not exist; name a tokenizer.json")
    tokenizer = Tokenizer.from_file(str(path))
    config = BackboneConfig(
        vocab_size=tokenizer.get_vocab_size(with_added_tokens=True),
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_heads=shape.num_heads,
        num_layers=shape.num_layers,
        num_decoder_layers=shape.num_decoder_layers,
        feed_forward_proj=shape.feed_forward_proj,
        dropout_rate=run.file.optimiser.dropout,
    )
    return config, tokenizer


def _tokenizer_of(bundle: Bundle) -> Tokenizer:
    return Tokenizer.from_buffer(bundle.tokenizer_json)


def _domain(
    run: Run, domain: DomainData, start: Bundle | None, tokenizer: TextTokenizer, config: BackboneConfig
) -> TunedDomain:
    dataset = Dataset.read(run.path(domain.data))
    notices: list[str] = []
    features = _features(run, domain.name, dataset, notices.append)
    prompts, images = run.file.prompts, run.file.images
    known = None if start is None else start.domains.get(domain.name)
    known_rows = 0 if known is None else known.spec.layout.whole_word_rows
    layout = _layout(run, config, 0 if features is None else features.dim, known_rows)
    spec = DomainSpec(
        name=domain.name,
        layout=layout,
        backbone_sha256="",
        encoder=None if images is None else ImageEncoder(images.encoder, layout.feature_dim),
        prompts=PromptDefaults(prompts.default_sequential, prompts.default_direct, prompts.max_tokens),
        templates=run.file.own_templates,
    )
    if dataset.codebook is not None:
        check_projection(dataset.codebook, layout.feature_dim, f"{domain.data}/{CODEBOOK}")
    sampler = DomainSampler(
        dataset, tokenizer, prompts, visual_tokens=layout.visual_tokens, templates=run.file.own_templates
    )
    if sampler.num_without_negatives:
        notices.append(
            f"{sampler.num_without_negatives:,} users had every item, and are not asked about candidates or one item"
        )
    warning = raw_id_warning(dataset.catalog)
    if warning is not None:
        notices.append(warning)
    missing_share = 0.0 if images is None else images.missing_share
    return TunedDomain(
        spec=spec,
        dataset=dataset,
        sampler=sampler,
        features=features,
        images=None if features is None else ImageTable.of(dataset, features, missing_share),
        notices=tuple(f"{domain.name}: {line}" for line in notices),
    )


def _layout(run: Run, config: BackboneConfig, feature_dim: int, known_whole_word_rows: int) -> DomainLayout:
    """The run's layout; a table of whole words is never shorter than the one that the domain has already."""
    adapters, images = run.file.adapters, run.file.images
    return DomainLayout(
        bottleneck=_bottleneck(run, config),
        cross_attention_adapter=adapters.in_cross_attention and adapters.reduction_factor > 0,
        one_adapter_for_all_tasks=adapters.one_for_all_tasks,
        visual_tokens=0 if images is None else images.tokens,
        feature_dim=feature_dim,
        visual_norm=images is not None and images.norm,
        whole_word_rows=max(run.file.prompts.max_tokens, known_whole_word_rows),
        category_rows=_CATEGORY_ROWS,
    )


def _bottleneck(run: Run, config: BackboneConfig) -> int:
    factor = run.file.adapters.reduction_factor
    if factor > config.d_model:
        raise TrainingError(
            f"{run.places.of('adapters', 'reduction_factor')}: adapters.reduction_factor is {factor}, more than the "
            f"{config.d_model} of the backbone's d_model, which leaves adapters no width; set {config.d_model} at most"
        )
    return config.d_model // factor if factor else 0


def _features(run: Run, name: str, dataset: Dataset, notice: Notice) -> ItemFeatures | None:
    images = run.file.images
    if images is None:
        return None
    if name in images.features:
        return read_features(run.path(images.features[name]), dataset.catalog, notice=notice)
    if dataset.features is None:
        raise TrainingError(
            f"{run.places.of('images')}: the dataset of {name} has no image embeddings, which [images] needs; give "
            f"images.features.{name}, or leave [images] out to train on text alone"
        )
    return dataset.features


def _known_weights(start: Bundle, domain: str) -> dict[str, torch.Tensor]:
    """What a domain starts from: its own weights if the bundle has it, over the backbone's layer norms."""
    known = start.domains.get(domain)
    return {**start.backbone.weights, **({} if known is None else known.adapter)}
