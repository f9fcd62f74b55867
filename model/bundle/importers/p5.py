"""Importing P5 checkpoints: a T5 that was tuned with whole-word embeddings, without images and adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from model.bundle.importers.checkpoint import drop_aliases, read_checkpoint
from model.bundle.importers.config import ConfigFile, backbone_config, table_rows, ties_head
from model.bundle.importers.domain import CheckpointSource, DomainSource, ForeignModel, write_domain
from model.bundle.importers.tensor_names import with_shared
from model.bundle.importers.vocabulary import add_p5_tokens, check_size, read_tokenizer
from model.bundle.layout import DomainSpec, PromptDefaults
from model.bundle.shapes import WHOLE_WORD
from model.errors import BundleError
from model.network.network import NO_ADDITIONS
from model.progress import Progress


def import_p5(source: CheckpointSource, domain: DomainSource, out: Path, progress: Progress) -> str:
    """Add a P5 checkpoint to the bundle at `out`, creating it if necessary; returns the bundle's hash.

    P5 tunes the whole T5, so a bundle with another backbone cannot take it. Raises as `import_vip5` does.
    """
    config = ConfigFile(source.config)
    progress("reading the checkpoint", 0, None)
    where = source.checkpoint.name
    tensors = with_shared(read_checkpoint(source.checkpoint), tied_head=ties_head(config), where=where)
    backbone = backbone_config(config, tensors)
    tensors = drop_aliases(tensors, tied_head=backbone.tie_word_embeddings, where=where)
    has_whole_words = config.get("whole_word_embed", bool, default=WHOLE_WORD in tensors)
    layout = replace(NO_ADDITIONS, whole_word_rows=table_rows(tensors, WHOLE_WORD) if has_whole_words else 0)
    tokenizer = _tokenizer(config, source.tokenizer)
    if tokenizer is not None:
        check_size(tokenizer, backbone.vocab_size, where)
    spec = DomainSpec(
        name=domain.name,
        layout=layout,
        backbone_sha256="",
        prompts=PromptDefaults(max_tokens=config.get("max_text_length", int, 512)),
    )
    return write_domain(ForeignModel(where, backbone, tensors, tokenizer), spec, domain, out, progress)


def _tokenizer(config: ConfigFile, path: Path | None) -> Tokenizer | None:
    """The T5's tokenizer with P5's tokens, if a path is given."""
    num_users, num_items = (config.get(key, int, 0) for key in ("user_extra_ids", "item_extra_ids"))
    if min(num_users, num_items) < 0:
        raise BundleError(
            f"{config.name}: user_extra_ids and item_extra_ids are {num_users} and {num_items}; both must be at least 0"
        )
    if path is None:
        return None
    tokenizer = read_tokenizer(path)
    add_p5_tokens(tokenizer, num_users, num_items)
    return tokenizer
