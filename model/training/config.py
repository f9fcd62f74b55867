"""The run file of a training run, in TOML: it holds everything that the run depends on.

Paths are relative to the run file's folder. An unknown key or a value out of range is an error that names
the file, the line and the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from model.network.config import TASKS, FeedForward, Task
from model.prompts.templates import DEFAULT_DIRECT, DEFAULT_SEQUENTIAL, TEMPLATES, VIP5_NAME, Target, Template
from model.training.run_checks import check_run
from model.training.run_documents import Places, convert
from model.training.toml_lines import TomlFile

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]
Seed: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 32)]  # numpy's
NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]

Shares: TypeAlias = Annotated[dict[Task, NotNegative], Meta(extra_json_schema={"propertyNames": {"enum": list(TASKS)}})]
_NAMES: dict[str, Any] = {"anyOf": [{"enum": list(TEMPLATES)}, {"not": {"pattern": VIP5_NAME}}]}
TemplateName: TypeAlias = Annotated[str, Meta(extra_json_schema=_NAMES)]
"""One of VIP5's, or one of `[[templates]]`, whose names differ from all that VIP5's might have."""

Tune: TypeAlias = Literal["adapters", "everything", "from_scratch"]
"""What is trained: a domain's additions only, all of an existing model, or all of a model with random weights."""


class DomainData(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A domain and its prepared dataset."""

    name: str
    data: str


class OwnTemplate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A template that comes with the domains, beside VIP5's: its name, and its text with arguments in braces.

    `separator` is the text between items, by default a comma or an arrow as VIP5 draws them; `most_items` is how many
    items of a history, the most recent ones, are read.
    """

    name: str
    text: str
    task: Task = "sequential"
    target: Target = "item"
    separator: str | None = None
    most_items: Count | None = None

    @property
    def template(self) -> Template:
        return Template(self.name, self.task, self.target, self.text, self.separator, self.most_items)


class ItemEmbeddings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Weights of what items' vectors are made of, as of `vip5 data index --method residual`."""

    pictures: NotNegative = 0.0
    titles: NotNegative = 0.0
    purchases: NotNegative = 0.0
    text_columns: tuple[str, ...] = ()


class Backbone(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Dimensions of a backbone that is trained from scratch, under Hugging Face's names, and its tokenizer.json.

    `embedding_std` is the standard deviation of token embeddings before training. Small models learn faster from less
    than T5's 1. With `item_embeddings`, tokens of identifiers begin as vectors of their items.
    """

    tokenizer: str
    d_model: Count
    d_kv: Count
    d_ff: Count
    num_heads: Count
    num_layers: Count
    num_decoder_layers: Count
    feed_forward_proj: FeedForward = "relu"
    embedding_std: Positive = 1.0
    item_embeddings: ItemEmbeddings | None = None


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
    predicted: the last three before the held-out items, as in VIP5, or all, in samples of their own or "in_one_pass".
    With `last_codes = "drawn"`, in domains with a codebook, every sample gives items last codes by lot, so that a model
    learns nothing of them and new items are like the known ones of their path.
    """

    tasks: Shares = msgspec.field(default_factory=lambda: dict.fromkeys(TASKS, 1.0))
    templates: tuple[TemplateName, ...] = ()
    targets: Literal["last", "all", "in_one_pass"] = "last"
    last_codes: Literal["given", "drawn"] = "given"
    max_history: Count | None = None
    num_candidates: Annotated[int, Meta(ge=2)] = 100
    max_tokens: Annotated[int, Meta(ge=8)] = 512
    default_sequential: TemplateName = DEFAULT_SEQUENTIAL
    default_direct: TemplateName = DEFAULT_DIRECT


class Optimiser(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """AdamW with a linear warm-up, until the first of `steps`, `epochs` and `time_budget_s` is reached.

    Batches are per device and accumulation step. The time of validation and checkpoints is not counted.
    `schedule_steps` is the length of the schedule (default: that of the run); with more than `steps`, the run ends
    before the learning rate is low, for another one to go on from. `drawing_processes` draw samples beside the
    training; 0 draws them in between. For `targets = "in_one_pass"` there are `batch_tokens`, prompt tokens with
    padding, instead of `batch_size`; only that pass is compiled by `compile`. `beta2` is AdamW's, of the mean of
    squared gradients. `dropout` is in all of T5's places, or in the residual path only: of prompts' embeddings, of what
    layers add to them, and of the encoder's states.
    """

    steps: Count | None = None
    schedule_steps: Count | None = None
    epochs: Count | None = None
    time_budget_s: Positive | None = None
    batch_size: Count = 32
    batch_tokens: Count | None = None
    gradient_accumulation: Count = 1
    learning_rate: Positive = 1e-3
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_share: Share = 0.1
    weight_decay: NotNegative = 0.01
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.999
    max_gradient_norm: Positive = 5.0
    dropout: Share = 0.1
    dropout_places: Literal["all", "residual"] = "all"
    loss: Literal["vip5", "per_sample"] = "vip5"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    drawing_processes: Annotated[int, Meta(ge=0)] = 0


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often checkpoints and losses are recorded, in steps; `validation_batches = 0` skips the validation loss.

    `validation_users` are asked at each validation through the engine that serves; the checkpoint with the best NDCG@10
    is the result, and the run ends if `patience` validations in a row are no better (0: never).
    """

    checkpoint_every: Count = 500
    log_every: Count = 50
    validate_every: Count = 500
    validation_batches: Annotated[int, Meta(ge=0)] = 8
    validation_users: Annotated[int, Meta(ge=0)] = 0
    patience: Annotated[int, Meta(ge=0)] = 0


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
    templates: tuple[OwnTemplate, ...] = ()
    record: Record = Record()

    @property
    def own_templates(self) -> tuple[Template, ...]:
        """The templates that come with the domains."""
        return tuple(each.template for each in self.templates)


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
