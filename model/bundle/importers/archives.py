"""What a checkpoint of torch may refer to, and how large it may say that it is, before torch reads it."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import torch

from model.errors import BundleError, UnsafeFileError

MAX_PICKLE_BYTES = 16 << 20
"""Of the names and shapes; the tensors' values lie beside them."""
MAX_RECORDS = 100_000

_NUM_LEGACY_PICKLES = 4  # magic number, protocol, system, state dict
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte", "Char", "Bool")
_ADMITTED = {
    *("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"),
    *(f"torch {kind}Storage" for kind in _STORAGES),
}


def check_archive(path: Path) -> None:
    """Look through a file's pickles without executing them.

    Raises UnsafeFileError for a name that a state dict does not need, which leaves torch's readers of sparse, quantised
    and other tensors out of reach, and BundleError for an archive that unpacks into more than its own size.
    """
    for content in _pickles(path):
        stream = BytesIO(content)
        try:
            for _ in range(1 if zipfile.is_zipfile(path) else _NUM_LEGACY_PICKLES):
                _check_names(stream, path.name)
        except ValueError:
            return  # no pickle: torch says what it is not


def check_tensors_fit(content: dict[str, torch.Tensor], where: str) -> None:
    """Raise BundleError for a tensor that claims more values than are stored for it, as an expanded one does."""
    for name, tensor in content.items():
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not is_plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise BundleError(
                f"{where}: {name} is not a plain tensor with all its values; save the model's state_dict()"
            )


def _pickles(path: Path) -> Iterator[bytes]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file.read(MAX_PICKLE_BYTES)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            names = {record.filename for record in records}
            if len(names) != len(records) or len(records) > MAX_RECORDS:
                raise BundleError(f"{path.name} has records of one name, or more than {MAX_RECORDS}; save it again")
            for record in records:
                if record.compress_type != zipfile.ZIP_STORED or record.file_size > path.stat().st_size:
                    raise BundleError(f"{path.name}: {record.filename} is compressed; save it with torch.save")
                if record.filename.endswith("data.pkl"):
                    if record.file_size > MAX_PICKLE_BYTES:
                        raise BundleError(
                            f"{path.name}: {record.filename} has {record.file_size} bytes, the limit is "
                            f"{MAX_PICKLE_BYTES}; save only the model's state_dict()"
                        )
                    yield archive.read(record)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise BundleError(f"{path.name} is not an archive that can be read ({error}); save it again") from error


def _check_names(stream: BytesIO, where: str) -> None:
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in {"GLOBAL", "INST"} and argument not in _ADMITTED:
            raise UnsafeFileError(
                f"{where} is refused: it has more than tensors and plain containers (it refers to "
                f"{str(argument).replace(' ', '.')}) and could execute code; save and import only the model's "
                "state_dict()"
            )
