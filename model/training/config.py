"""The run file of a training run, in TOML: it holds everything that the run depends on.

Paths are relative to the run file's folder. An unknown key or a value out of range is an error that names
the file, the line and the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from model.bundle.manifest import check_domain_name
from model.errors import BundleError, TrainingError
from model.network.config import TASKS, FeedForward, Task
from model.prompts.templates import DEFAULT_DIRECT, DEFAULT_SEQUENTIAL, TEMPLATES, templates_of
from model.training.run_documents import Places, convert
from model.training.toml_lines import TomlFile

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]
Seed: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 32)]  # numpy's
NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]

Shares: TypeAlias = Annotated[dict[Task, NotNegative], Meta(extra_json_schema={"propertyNames": {"enum": list(TASKS)}})]
TemplateName: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(TEMPLATES)})]

Tune: TypeAlias = Literal["adapters", "everything", "from_scratch"]
"""What is trained: a domain's additions only, all of an existing model, or all of a model with random weights."""


class DomainData(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A domain and its prepared dataset."""

    name: str
    data: str


class Backbone(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Dimensions of a backbone that is trained from scratch, under Hugging Face's names, and its tokenizer.json."""

    tokenizer: str
    d_model: Count
    d_kv: Count
    d_ff: Count
    num_heads: Count
    num_layers: Count
    num_decoder_layers: Count
    feed_forward_proj: FeedForward = "relu"


class Adapters(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bottleneck adapters, d_model // reduction_factor wide; 0 for none."""

    reduction_factor: Annotated[int, Meta(ge=0)] = 8
    in_cross_attention: bool = True
    one_for_all_tasks: bool = True


class Images(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How images enter prompts. `encoder` names the image tower as the paper does: vitb32, rn50 and so on.

    `features` is a folder or safetensors file as `vip5 import vip5` takes it (default: the dataset's own).
    `missing_share` of the images are replaced by zeros in training, as in serving while the feature store is down.
    """

    encoder: str = "vitb32"
    features: dict[str, str] = msgspec.field(default_factory=dict)  # by domain
    tokens: Count = 2
    norm: bool = True
    missing_share: Share = 0.0


class Prompts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which prompts are trained on, and how often each task is drawn.

    A task of which `templates` names none uses all of its templates. `targets` says which positions of a history are
    predicted: the last three before the held-out items, as in VIP5, or all.
    """

    tasks: Shares = msgspec.field(default_factory=lambda: dict.fromkeys(TASKS, 1.0))
    templates: tuple[TemplateName, ...] = ()
    targets: Literal["last", "all"] = "last"
    max_history: Count | None = None
    num_candidates: Annotated[int, Meta(ge=2)] = 100
    max_tokens: Annotated[int, Meta(ge=8)] = 512
    default_sequential: TemplateName = DEFAULT_SEQUENTIAL
    default_direct: TemplateName = DEFAULT_DIRECT


class Optimiser(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """AdamW with a linear warm-up. `batch_size` is per device and accumulation step."""

    steps: Count
    batch_size: Count = 32
    gradient_accumulation: Count = 1
    learning_rate: Positive = 1e-3
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_share: Share = 0.1
    weight_decay: NotNegative = 0.01
    max_gradient_norm: Positive = 5.0
    dropout: Share = 0.1
    loss: Literal["vip5", "per_sample"] = "vip5"
    precision: Literal["float32", "bfloat16"] = "float32"


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often checkpoints and losses are recorded, in steps; `validation_batches = 0` skips validation."""

    checkpoint_every: Count = 500
    log_every: Count = 50
    validate_every: Count = 500
    validation_batches: Annotated[int, Meta(ge=0)] = 8


class RunFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All keys of a run file."""

    out: str
    domains: tuple[DomainData, ...]
    optimiser: Optimiser
    tune: Tune = "adapters"
    start: str | None = None
    work: str | None = None
    seed: Seed = 0
    tune_tables: bool = False
    backbone: Backbone | None = None
    adapters: Adapters = Adapters()
    images: Images | None = None
    prompts: Prompts = Prompts()
    record: Record = Record()


class Run(Struct, frozen=True):
    """A valid run file, the folder that it is in, and where its keys stand."""

    name: str
    folder: Path
    file: RunFile
    places: Places

    def path(self, text: str) -> Path:
        """Resolve a path of the run file."""
        return self.folder / text

    @property
    def out(self) -> Path:
        return self.path(self.file.out)

    @property
    def start(self) -> Path:
        """The bundle that training starts from."""
        return self.path(self.file.start or self.file.out)

    @property
    def work(self) -> Path:
        """The folder for checkpoints and logs."""
        return self.path(self.file.work or f"work/{self.name}")

    @property
    def tunes_backbone(self) -> bool:
        return self.file.tune != "adapters"


def read_run(path: Path) -> Run:
    """Read and check a run file; raises TrainingError naming the file, the line, the key and the rule."""
    document = TomlFile.read(path)
    return run_of(path.stem, document.document, Places(document))


def run_of(name: str, document: Mapping[str, Any], places: Places) -> Run:
    """The run that a document describes. Its paths are relative to the folder of the file that `places` is based on."""
    file = convert(document, RunFile, places)
    check_run(file, places)
    return Run(name=name, folder=places.base.path.resolve().parent, file=file, places=places)


def check_run(file: RunFile, places: Places) -> None:
    """Raise TrainingError if the parts of a run file contradict each other."""
    _check_domains(file, places)
    _check_tune(file, places)
    _check_prompts(file, places)


def _check_domains(file: RunFile, places: Places) -> None:
    names = [domain.name for domain in file.domains]
    if not names:
        raise TrainingError(f"{places.of('domains')}: domains is empty; name at least one")
    for place, name in enumerate(names):
        try:
            check_domain_name(name)
        except BundleError as error:
            raise TrainingError(f"{places.of('domains', place, 'name')}: domains[{place}].name: {error}") from error
        if name in names[:place]:
            raise TrainingError(
                f"{places.of('domains', place, 'name')}: [[domains]] are {names}; name at least one, each once"
            )


def _check_tune(file: RunFile, places: Places) -> None:
    if (file.tune == "from_scratch") != (file.backbone is not None):
        raise TrainingError(
            f"{places.of('tune' if file.backbone is None else 'backbone')}: tune is {file.tune!r}; only 'from_scratch' "
            "has a [backbone], and it must: add or remove it"
        )
    if file.tune == "from_scratch" and file.start is not None:
        raise TrainingError(f"{places.of('start')}: tune is 'from_scratch', which starts from no bundle; remove start")
    if file.tune == "everything" and (file.start is None or file.start == file.out):
        raise TrainingError(
            f"{places.of('start' if file.start else 'tune')}: tune is 'everything', which changes the backbone that "
            "the domains of a bundle share; set start to the bundle to start from, and another bundle as out"
        )
    if file.tune == "adapters" and not file.adapters.reduction_factor:
        raise TrainingError(
            f"{places.of('adapters', 'reduction_factor')}: adapters.reduction_factor is 0, so there are no adapters to "
            "tune; set 1 or more"
        )


def _check_prompts(file: RunFile, places: Places) -> None:
    prompts = file.prompts
    for place, name in enumerate(prompts.templates):
        _check_template(f"prompts.templates[{place}]", name, list(TEMPLATES), places.of("prompts", "templates", place))
    generating = [each.template_id for each in templates_of("sequential") if each.target == "item"]
    direct = [each.template_id for each in templates_of("direct")]
    for key, name, allowed in (
        ("default_sequential", prompts.default_sequential, generating),
        ("default_direct", prompts.default_direct, direct),
    ):
        _check_template(f"prompts.{key}", name, allowed, places.of("prompts", key))
    if not any(prompts.tasks.values()):
        raise TrainingError(
            f"{places.of('prompts', 'tasks')}: all shares in prompts.tasks are 0; give one a share above 0"
        )


def _check_template(key: str, name: str, allowed: Sequence[str], place: str) -> None:
    if name not in allowed:
        known = f"the template {name!r}" if name not in TEMPLATES else f"{name!r}, a template of another kind"
        raise TrainingError(f"{place}: {key} names {known}; choose from {', '.join(allowed)}")
