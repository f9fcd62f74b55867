"""From a run file to a network, samplers and what the result is to be written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer

from model.bundle.bundle import Bundle, open_bundle
from model.bundle.features import ItemFeatures, read_features
from model.bundle.layout import MANIFEST, TOKENIZER, DomainSpec, ImageEncoder, PromptDefaults
from model.bundle.manifest import check_domain_name
from model.bundle.shapes import expected_shapes
from model.datasets.dataset import Dataset
from model.errors import TrainingError
from model.network.config import BackboneConfig, DomainLayout
from model.network.network import Vip5Network
from model.network.weights import load_backbone, load_domain
from model.prompts.tokenizer import TextTokenizer
from model.training.batches import ImageTable
from model.training.config import Run
from model.training.initial import Initialiser
from model.training.sampling import DomainSampler

_CATEGORY_ROWS = 16
_FROM_SCRATCH = "a backbone from scratch"


@dataclass(frozen=True, eq=False)
class TunedDomain:
    """A domain to be tuned: its data, and how it will be described in the bundle."""

    spec: DomainSpec
    dataset: Dataset
    sampler: DomainSampler
    features: ItemFeatures | None
    images: ImageTable | None


@dataclass(frozen=True, eq=False)
class Preparation:
    """Everything that a run needs, loaded and checked. `network` has the starting weights, on the CPU."""

    run: Run
    config: BackboneConfig  # without the run's dropout
    tokenizer: Tokenizer
    domains: tuple[TunedDomain, ...]
    network: Vip5Network
    start: Bundle | None


def prepare(run: Run) -> Preparation:
    """Read the start and the datasets. Raises TrainingError, DatasetError or BundleError, before any work is done."""
    start = None if run.file.backbone is not None else open_bundle(run.start)
    _check_out(run, start)
    config, tokenizer = _from_scratch(run) if start is None else (start.backbone.config, _tokenizer_of(start))
    domains = tuple(_domain(run, number, start, TextTokenizer(tokenizer), config) for number in _numbers(run))
    layouts = [domain.spec.layout for domain in domains]
    network = Vip5Network(replace(config, dropout_rate=run.file.optimiser.dropout), layouts)
    initialiser = Initialiser(config, run.file.seed)
    weights = initialiser.tensors(expected_shapes(config), _FROM_SCRATCH) if start is None else start.backbone.weights
    load_backbone(network, weights)
    for slot, domain in enumerate(domains):
        load_domain(network, slot, initialiser.domain(domain.spec.name, domain.spec.layout, _given(start, domain)))
    return Preparation(run, config, tokenizer, domains, network, start)


def _numbers(run: Run) -> Sequence[int]:
    return range(len(run.file.domains))


def _check_out(run: Run, start: Bundle | None) -> None:
    """What the run writes must have a place, which is better known before hours of work than after."""
    for domain in run.file.domains:
        check_domain_name(domain.name)
    if not (run.out / MANIFEST).exists():
        return
    if run.tunes_backbone:
        raise TrainingError(
            f"{run.out} is there already, and a run that changes the backbone writes a bundle of its own; "
            "remove it or name another as out"
        )
    if start is not None and run.out.resolve() != start.root.resolve():
        present = open_bundle(run.out).backbone.sha256
        if present != start.backbone.sha256:
            raise TrainingError(
                f"{run.out} has another backbone than {run.start}; tune on the bundle that the domain is to go into"
            )


def _from_scratch(run: Run) -> tuple[BackboneConfig, Tokenizer]:
    shape = run.file.backbone
    assert shape is not None, "asked for a backbone from scratch that the run file does not have"
    path = run.path(shape.tokenizer)
    path = path / TOKENIZER.name if path.is_dir() else path
    if not path.is_file():
        raise TrainingError(f"backbone.tokenizer is {path}, which is not there; name a tokenizer.json")
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
    return Tokenizer.from_file(str(bundle.root / TOKENIZER))


def _domain(
    run: Run, number: int, start: Bundle | None, tokenizer: TextTokenizer, config: BackboneConfig
) -> TunedDomain:
    file, domain = run.file, run.file.domains[number]
    dataset = Dataset.read(run.path(domain.data))
    features = _features(run, number, dataset)
    images = file.images
    known = None if start is None else start.domains.get(domain.name)
    layout = DomainLayout(
        bottleneck=_bottleneck(run, config),
        cross_attention_adapter=file.adapters.in_cross_attention and file.adapters.reduction_factor > 0,
        one_adapter_for_all_tasks=file.adapters.one_for_all_tasks,
        visual_tokens=0 if images is None else images.tokens,
        feature_dim=0 if features is None else features.dim,
        visual_norm=images is not None and images.norm,
        whole_word_rows=max(file.prompts.max_tokens, 0 if known is None else known.spec.layout.whole_word_rows),
        category_rows=_CATEGORY_ROWS,
    )
    spec = DomainSpec(
        name=domain.name,
        layout=layout,
        backbone_sha256="",
        encoder=None if images is None else ImageEncoder(images.encoder, layout.feature_dim),
        prompts=PromptDefaults(file.prompts.default_sequential, file.prompts.default_direct, file.prompts.max_tokens),
    )
    missing_share = 0.0 if images is None else images.missing_share
    return TunedDomain(
        spec=spec,
        dataset=dataset,
        sampler=DomainSampler(dataset, tokenizer, file.prompts, visual_tokens=layout.visual_tokens),
        features=features,
        images=None if features is None else ImageTable.of(dataset, features, missing_share),
    )


def _bottleneck(run: Run, config: BackboneConfig) -> int:
    factor = run.file.adapters.reduction_factor
    if factor > config.d_model:
        raise TrainingError(
            f"{run.name}: adapters.reduction_factor is {factor}, more than the {config.d_model} of the backbone's "
            "width; the adapters would have no width left"
        )
    return config.d_model // factor if factor else 0


def _features(run: Run, number: int, dataset: Dataset) -> ItemFeatures | None:
    images, name = run.file.images, run.file.domains[number].name
    if images is None:
        return None
    if name in images.features:
        return read_features(run.path(images.features[name]), dataset.catalog)
    if dataset.features is None:
        raise TrainingError(
            f"{run.name}: prompts are to show pictures, but the dataset of {name} has no image embeddings; give "
            f"images.features.{name}, or leave [images] out to train on text alone"
        )
    return dataset.features


def _given(start: Bundle | None, domain: TunedDomain) -> dict[str, torch.Tensor]:
    """What a domain starts from: what it has in the bundle by now, over the layer norms of a T5."""
    if start is None:
        return {}
    known = start.domains.get(domain.spec.name)
    return {**start.backbone.weights, **({} if known is None else known.adapter)}
