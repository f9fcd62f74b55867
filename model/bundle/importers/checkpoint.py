"""State dicts of foreign checkpoints: read without executing anything, and reduced to one name per tensor."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from pickle import UnpicklingError

import torch

from model.bundle.importers.archives import check_archive, check_tensors_fit
from model.bundle.importers.tensor_names import (
    SHARED_ALIASES,
    require_same,
    state_dict_in,
    with_first_task,
    without_wrappers,
)
from model.bundle.safetensors_format import LENGTH_BYTES
from model.bundle.shapes import HEAD, SHARED
from model.bundle.tensors import check_finite, read_tensors
from model.errors import BundleError, UnsafeFileError
from model.network.config import TASKS

# T5 conversions from TensorFlow have it; cross-attention has no position bias, and no implementation reads it.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict that torch or safetensors saved, by the model's own names.

    Only tensors and plain containers are built. Raises UnsafeFileError for a pickle with anything else, BundleError for
    a file that is not a state dict.
    """
    tensors = without_wrappers(_saved_state_dict(path), path.name)
    check_finite(tensors, path.name)
    return tensors


def _saved_state_dict(path: Path) -> dict[str, torch.Tensor]:
    if _is_safetensors(path):
        return read_tensors(path)
    check_archive(path)
    try:
        with warnings.catch_warnings():
            # An unusual pickle protocol is not a problem: what cannot be read raises.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UnsafeFileError(
            f"{path.name} is refused: it has more than tensors and plain containers ({_reason(error)}) and could "
            "execute code; save and import only the model's state_dict()"
        ) from error
    except Exception as error:  # the library can raise anything for other files
        raise BundleError(f"{path.name} is not a checkpoint that torch can read: {_first_line(error)}") from error
    found = state_dict_in(content, path.name)
    check_tensors_fit(found, path.name)
    return found


def _is_safetensors(path: Path) -> bool:
    """By the content, which begins with the length of a JSON header: whatever the file is called."""
    with path.open("rb") as file:
        return file.read(LENGTH_BYTES + 1)[LENGTH_BYTES:] == b"{"


def drop_aliases(tensors: dict[str, torch.Tensor], *, tied_head: bool, where: str) -> dict[str, torch.Tensor]:
    """The tensors without aliases of the shared embedding, and without those that no T5 reads.

    Raises BundleError if an alias differs from the tensor that it stands for.
    """
    kept = dict(tensors)
    kept.pop(_UNUSED, None)
    for alias in (*SHARED_ALIASES, *([HEAD] if tied_head else [])):
        _drop_copy(kept, alias, SHARED, where, "tie_word_embeddings" if alias == HEAD else "T5")
    return kept


def drop_task_copies(tensors: dict[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The tensors with a single adapter, instead of the same one under each task's name."""
    kept = with_first_task(tensors)
    for name in tensors:
        for task in TASKS[1:]:
            if f".adapters.{task}." in name:
                original = name.replace(f".adapters.{task}.", f".adapters.{TASKS[0]}.")
                _drop_copy(kept, name, original, where, "use_single_adapter")
    return kept


def _drop_copy(tensors: dict[str, torch.Tensor], alias: str, original: str, where: str, reason: str) -> None:
    if alias in tensors and original in tensors:
        require_same(tensors, alias, original, where, reason)
        del tensors[alias]


def _reason(error: UnpicklingError) -> str:
    """The forbidden name, such as posix.system, without the library's advice to load the file anyway."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it refers to {found[1]}" if found else "its pickle has instructions that a state dict does not need"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
