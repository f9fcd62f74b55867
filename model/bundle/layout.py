"""File names of a bundle, and the content of domain.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from model.network.config import DomainLayout
from model.prompts.templates import DEFAULT_DIRECT, DEFAULT_SEQUENTIAL, Template

FORMAT_VERSION = 1

MANIFEST = PurePosixPath("manifest.json")
SIGNATURES = PurePosixPath("manifest.json.sig")
"""Of the manifest, which does not list them."""
BACKBONE_CONFIG = PurePosixPath("backbone/config.json")
BACKBONE_WEIGHTS = PurePosixPath("backbone/model.safetensors")
TOKENIZER = PurePosixPath("backbone/tokenizer.json")


def domain_file(domain: str, name: str) -> PurePosixPath:
    return PurePosixPath("domains") / domain / name


DOMAIN_SPEC = "domain.json"
ADAPTER_WEIGHTS = "adapter.safetensors"
CATALOG = "catalog.parquet"
USERS = "users.parquet"
FEATURES = "features.safetensors"
CODEBOOK = "codebook.safetensors"
TRAINING_RECORD = "training.json"
IMAGES = "images"
"""A folder of pictures, in a domain's folder or beside a bundle."""


@dataclass(frozen=True)
class ImageEncoder:
    """The CLIP image tower that made the embeddings; the name is as in the paper, such as `vitb32`."""

    name: str
    dim: int


@dataclass(frozen=True)
class PromptDefaults:
    """Templates for requests that name none, and the maximum length of a prompt in tokens, including `</s>`."""

    sequential: str = DEFAULT_SEQUENTIAL
    direct: str = DEFAULT_DIRECT
    max_tokens: int = 1024


@dataclass(frozen=True)
class DomainSpec:
    """domain.json: everything about a domain that is not a tensor or a table.

    `trained` is False for untrained weights, which answers report. `backbone_sha256` is the digest of the
    backbone/model.safetensors that the domain was tuned on. `templates` are the domain's own, beside VIP5's; the file
    has the key only if there are some.
    """

    name: str
    layout: DomainLayout
    backbone_sha256: str
    encoder: ImageEncoder | None = None
    prompts: PromptDefaults = field(default_factory=PromptDefaults)
    length_penalty: float = 0.0
    trained: bool = True
    templates: tuple[Template, ...] = ()
