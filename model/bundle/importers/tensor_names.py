"""Names in foreign state dicts: wrappers around the model, and aliases of one tensor, as training tools leave them.

What has one meaning is accepted: a state dict within another document, one prefix of all names, one name of several for
the same tensor. All else is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from model.bundle.shapes import HEAD, SHARED
from model.bundle.tensors import named
from model.errors import BundleError
from model.network.config import TASKS

SHARED_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Parts of names that torch.compile, FSDP, activation checkpoints and Lightning insert anywhere.
_INSERTED = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
# The counter of torch's AveragedModel, whose other tensors are those of the averaged model.
_COUNTER = "n_averaged"
# Parts of names that PEFT gives to weights beside those of the model.
_UNMERGED = frozenset({"base_layer", "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "modules_to_save"})
_MOST_LEVELS = 3  # of documents around a state dict


def state_dict_in(content: object, where: str) -> dict[str, torch.Tensor]:
    """The state dict that a file holds, itself or in a document such as {"state_dict": …, "epoch": 3}.

    Raises BundleError for a file without one, and for two state dicts of a T5.
    """
    for _ in range(_MOST_LEVELS):
        if not isinstance(content, Mapping) or not content:
            raise BundleError(f"{where} is a {type(content).__name__}, not a state dict; save the model's state_dict()")
        inner = {str(key): value for key, value in content.items() if _is_state_dict(value)}
        if not inner or any(isinstance(value, torch.Tensor) for value in content.values()):
            break
        of_t5 = [key for key, value in inner.items() if _prefixes(value)] or list(inner)
        if len(of_t5) > 1:
            raise BundleError(f"{where} has several state dicts, {named(of_t5)}; save only that of the model to import")
        content = inner[of_t5[0]]
    assert isinstance(content, Mapping)
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise BundleError(f"{where}: {named(others)} is not a tensor; save only the model's state_dict()")
    return {str(name): value.detach() for name, value in content.items()}


def without_wrappers(tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The tensors under the model's own names: without inserted parts, and without a prefix that all have.

    Raises BundleError if two names become one, for a prefix that only some names have, and for adapters of PEFT that
    are not merged.
    """
    unmerged = [name for name in tensors if not _UNMERGED.isdisjoint(name.split("."))]
    if unmerged:
        raise BundleError(
            f"{where} has weights of PEFT that are not merged into the model, {named(unmerged)}; merge them with "
            "merge_and_unload() and save that model's state dict"
        )
    plain: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name == _COUNTER:
            continue
        bare = ".".join(part for part in name.split(".") if part not in _INSERTED)
        if bare in plain:
            raise BundleError(
                f"{where} has {bare} twice, as {origin[bare]} and {name}; save the state dict of one model"
            )
        plain[bare], origin[bare] = tensor, name
    prefixes = _prefixes(plain)
    if len(prefixes) > 1:
        listed = " and ".join(repr(prefix) if prefix else "no prefix" for prefix in prefixes)
        raise BundleError(f"{where} has the weights of several T5s, under {listed}; save the state dict of one model")
    if not prefixes or not prefixes[0]:
        return plain
    (prefix,) = prefixes
    others = [name for name in plain if not name.startswith(prefix)]
    if others:
        raise BundleError(
            f"{where}: the T5's names begin with {prefix!r}, but {named(others)} "
            f"{'does' if len(others) == 1 else 'do'} not; save only the state dict of the T5"
        )
    return {name.removeprefix(prefix): tensor for name, tensor in plain.items()}


def with_shared(tensors: dict[str, torch.Tensor], *, tied_head: bool, where: str) -> dict[str, torch.Tensor]:
    """The tensors with the shared embedding under its own name, if they have it under an alias only.

    `save_model` of safetensors keeps one of the names of a tensor. Raises BundleError if there is none, or if aliases
    differ.
    """
    if SHARED in tensors:
        return tensors
    aliases = [name for name in (*SHARED_ALIASES, *([HEAD] if tied_head else [])) if name in tensors]
    if not aliases:
        seen = f"it has {HEAD}, which the configuration does not tie to it" if HEAD in tensors else _seen(tensors)
        raise BundleError(
            f"the checkpoint has no {SHARED}, so it is not a T5's; give the state dict of the whole model ({where}: "
            f"{seen})"
        )
    first, *others = aliases
    for alias in others:
        require_same(tensors, alias, first, where, "tie_word_embeddings" if alias == HEAD else "T5")
    return {SHARED: tensors[first], **tensors}


def with_first_task(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with adapters under the first task's name, where only copies under other tasks' names were kept."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        for task in TASKS[1:]:
            found.setdefault(name.replace(f".adapters.{task}.", f".adapters.{TASKS[0]}."), tensor)
    return found


def require_same(tensors: Mapping[str, torch.Tensor], alias: str, original: str, where: str, reason: str) -> None:
    """Raise BundleError if two names for one tensor have different values."""
    copy, tensor = tensors[alias], tensors[original]
    if copy.shape != tensor.shape or not torch.equal(copy, tensor):
        raise BundleError(
            f"{where}: {alias} differs from {original}, but by {reason} they are the same tensor; check that the "
            "configuration belongs to the checkpoint"
        )


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and (
            all(isinstance(tensor, torch.Tensor) for tensor in value.values())
            or any(_is_state_dict(inner) for inner in value.values())
        )
    )


def _prefixes(tensors: Mapping[str, object]) -> Sequence[str]:
    """What comes before the names of T5s' embeddings, in the order of the names."""
    found: dict[str, None] = {}
    for name in map(str, tensors):
        for known in (SHARED, *SHARED_ALIASES, HEAD):
            if name == known or name.endswith(f".{known}"):
                found[name.removesuffix(known)] = None
    return list(found)


def _seen(tensors: Mapping[str, torch.Tensor]) -> str:
    return f"it has {named(tensors)}"
