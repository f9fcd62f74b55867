"""Importing VIP5 checkpoints: a frozen T5, adapters, a visual mapper, and the trainer's config.json."""

from __future__ import annotations

from pathlib import Path

from model.bundle.importers.checkpoint import drop_aliases, drop_task_copies, read_checkpoint
from model.bundle.importers.config import ConfigFile, backbone_config, ties_head, vip5_encoder, vip5_layout
from model.bundle.importers.domain import CheckpointSource, DomainSource, ForeignModel, write_domain
from model.bundle.importers.tensor_names import with_shared
from model.bundle.importers.vocabulary import check_size, read_tokenizer
from model.bundle.layout import DomainSpec, PromptDefaults
from model.progress import Progress


def import_vip5(source: CheckpointSource, domain: DomainSource, out: Path, progress: Progress) -> str:
    """Add a VIP5 checkpoint to the bundle at `out`, creating it if necessary; returns the bundle's hash.

    Raises BackboneMismatchError if the checkpoint's frozen weights differ from the bundle's, BundleError or another
    subclass for files that break a rule; the bundle is then unchanged.
    """
    config = ConfigFile(source.config)
    progress("reading the checkpoint", 0, None)
    where = source.checkpoint.name
    tensors = with_shared(read_checkpoint(source.checkpoint), tied_head=ties_head(config), where=where)
    backbone = backbone_config(config, tensors)
    layout = vip5_layout(config, tensors)
    tensors = drop_aliases(tensors, tied_head=backbone.tie_word_embeddings, where=where)
    if layout.one_adapter_for_all_tasks:
        tensors = drop_task_copies(tensors, where)
    spec = DomainSpec(
        name=domain.name,
        layout=layout,
        backbone_sha256="",
        encoder=vip5_encoder(config, layout),
        prompts=PromptDefaults(max_tokens=config.get("max_text_length", int, 1024)),
    )
    tokenizer = None if source.tokenizer is None else read_tokenizer(source.tokenizer)
    if tokenizer is not None:
        check_size(tokenizer, backbone.vocab_size, where)
    return write_domain(ForeignModel(where, backbone, tensors, tokenizer), spec, domain, out, progress)
