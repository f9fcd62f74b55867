"""Strict conversion of domain.json and backbone/config.json to and from dataclasses.

A missing or unknown key, and a value of the wrong type, is an error that names the key.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from model.bundle.folders import replacing
from model.bundle.layout import BACKBONE_CONFIG, DOMAIN_SPEC, DomainSpec, domain_file
from model.bundle.opened_file import Content
from model.errors import BundleError
from model.network.config import BackboneConfig, DomainLayout
from model.prompts.templates import with_own

T = TypeVar("T")

_T5_CONSTANTS: dict[str, object] = {
    "architectures": ["T5ForConditionalGeneration"],
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "is_encoder_decoder": True,
    "model_type": "t5",
    "pad_token_id": 0,
}
"""Values that are the same in every backbone, with which Hugging Face's T5Config can read the file."""


def write_json(path: Path, content: object) -> None:
    """Equal contents give equal bytes."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def read_json_object(path: Path) -> dict[str, object]:
    """Raise BundleError if the file is not one JSON object."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path.name} is not readable JSON: {error}; get the file again from its source") from error
    return parse_json_object(content, path.name)


def parse_json_object(content: Content, name: str) -> dict[str, object]:
    """Raise BundleError, which calls the content `name`, if it is not one JSON object."""
    try:
        document = json.loads(bytes(content), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not readable JSON: {error}; get the file again from its source") from error
    if not isinstance(document, dict):
        raise BundleError(f"{name} is a JSON {type(document).__name__}; it must be an object")
    return document


def write_domain_spec(path: Path, spec: DomainSpec) -> None:
    content = asdict(spec)
    if not spec.templates:
        del content["templates"]
    write_json(path, content)


def read_domain_spec(path: Path, name: str) -> DomainSpec:
    """Raises BundleError if the file breaks a rule; `name` is the domain's folder."""
    return _domain_spec(read_json_object(path), name)


def parse_domain_spec(content: Content, name: str) -> DomainSpec:
    """Raises BundleError if domain.json's content breaks a rule; `name` is the domain's folder."""
    return _domain_spec(parse_json_object(content, DOMAIN_SPEC), name)


def _domain_spec(content: dict[str, object], name: str) -> DomainSpec:
    where = str(domain_file(name, DOMAIN_SPEC))
    spec = dataclass_from(DomainSpec, {"templates": [], **content}, where)
    if spec.name != name:
        raise BundleError(f"{where}: the domain's name is {spec.name!r}, but its folder is {name!r}; import it again")
    _check_layout(spec.layout, where)
    if spec.encoder is not None and spec.encoder.dim != spec.layout.feature_dim:
        raise BundleError(
            f"{where}: encoder.dim is {spec.encoder.dim}, but layout.feature_dim is {spec.layout.feature_dim}; "
            "the visual mapper reads the encoder's output, so they must be equal"
        )
    if spec.prompts.max_tokens < 1:
        raise BundleError(f"{where}: prompts.max_tokens is {spec.prompts.max_tokens}; it must be at least 1")
    try:
        with_own(spec.templates)
    except ValueError as error:
        raise BundleError(f"{where}: templates: {error}") from error
    return spec


def write_backbone_config(path: Path, config: BackboneConfig) -> None:
    write_json(path, {**asdict(config), **_T5_CONSTANTS})


def read_backbone_config(path: Path) -> BackboneConfig:
    """Raises BundleError if the file breaks a rule."""
    return _backbone_config(read_json_object(path))


def parse_backbone_config(content: Content) -> BackboneConfig:
    """Raises BundleError if config.json's content breaks a rule."""
    return _backbone_config(parse_json_object(content, BACKBONE_CONFIG.name))


def _backbone_config(content: dict[str, object]) -> BackboneConfig:
    where = str(BACKBONE_CONFIG)
    for key, value in _T5_CONSTANTS.items():
        if content.pop(key, None) != value:
            raise BundleError(f"{where}: {key} must be {json.dumps(value)}; import the backbone again")
    config = dataclass_from(BackboneConfig, content, where)
    check_backbone_config(config, where)
    return config


def check_backbone_config(config: BackboneConfig, where: str) -> None:
    """Raise BundleError for an impossible dimension."""
    for field in fields(config):
        value = getattr(config, field.name)
        if type(value) is int and value < 1:
            raise BundleError(f"{where}: {field.name} is {value}; it must be at least 1")
    if config.layer_norm_epsilon <= 0:
        raise BundleError(f"{where}: layer_norm_epsilon is {config.layer_norm_epsilon}; it must be greater than 0")


def dataclass_from(kind: type[T], content: object, where: str) -> T:
    """Build a dataclass from JSON, including nested dataclasses."""
    if not isinstance(content, dict):
        raise BundleError(f"{where} is {_shown(content)}; it must be an object")
    hints = get_type_hints(kind)
    missing = sorted(hints.keys() - content.keys())
    unknown = sorted(content.keys() - hints.keys())
    if missing or unknown:
        faults = [f"{text} {', '.join(keys)}" for text, keys in (("lacks", missing), ("has unknown", unknown)) if keys]
        raise BundleError(f"{where} {' and '.join(faults)}; it must have exactly {', '.join(sorted(hints))}")
    return kind(**{name: _value(hint, content[name], f"{where}: {name}") for name, hint in hints.items()})


def _value(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type hint has no type of its own
    if is_dataclass(hint):
        return dataclass_from(cast("type[object]", hint), value, where)
    if get_origin(hint) in (UnionType, Union):
        if value is None:
            return None
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
        return _value(hint, value, where)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], each, f"{where}[{place}]") for place, each in enumerate(value))
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise BundleError(f"{where} is {_shown(value)}; it must be one of {', '.join(map(str, get_args(hint)))}")
        return value
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not (get_origin(hint) or hint):
        raise BundleError(f"{where} is {_shown(value)}; it must be of type {getattr(hint, '__name__', 'list')}")
    return value


def _check_layout(layout: DomainLayout, where: str) -> None:
    for field in fields(layout):
        value = getattr(layout, field.name)
        if type(value) is int and value < 0:
            raise BundleError(f"{where}: layout.{field.name} is {value}; it must not be negative")
    if layout.visual_tokens and not layout.feature_dim:
        raise BundleError(
            f"{where}: layout.feature_dim is 0 and visual_tokens {layout.visual_tokens}; set both, or neither"
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
