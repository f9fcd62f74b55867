"""manifest.json: what files a bundle has, and their digests. The bundle's hash is the SHA-256 of this file's bytes."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from model.bundle.documents import dataclass_from, read_json_object, write_json
from model.bundle.layout import (
    ADAPTER_WEIGHTS,
    BACKBONE_CONFIG,
    BACKBONE_WEIGHTS,
    CATALOG,
    DOMAIN_SPEC,
    FEATURES,
    FORMAT_VERSION,
    MANIFEST,
    TOKENIZER,
    TRAINING_RECORD,
    USERS,
)
from model.errors import BundleError, IntegrityError

DOMAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

MOST_BYTES = {
    MANIFEST.name: 8 << 20,
    BACKBONE_CONFIG.name: 1 << 20,
    TOKENIZER.name: 64 << 20,
    BACKBONE_WEIGHTS.name: 64 << 30,
    DOMAIN_SPEC: 1 << 20,
    TRAINING_RECORD: 64 << 20,
    ADAPTER_WEIGHTS: 8 << 30,
    CATALOG: 4 << 30,
    USERS: 4 << 30,
    FEATURES: 256 << 30,
}
"""Largest file of each name, in bytes; what is larger is not even hashed. Far beyond what models of this kind need."""

_BACKBONE_FILES = (BACKBONE_CONFIG, BACKBONE_WEIGHTS, TOKENIZER)
_DOMAIN_FILES = (DOMAIN_SPEC, ADAPTER_WEIGHTS, CATALOG)
_OPTIONAL_DOMAIN_FILES = (USERS, FEATURES, TRAINING_RECORD)


@dataclass(frozen=True)
class FileRecord:
    """Digest and size of one file; the size is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The files of a bundle, without manifest.json itself."""

    files: dict[PurePosixPath, FileRecord]
    hash: str

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted({path.parts[1] for path in self.files if path.parts[0] == "domains"}))


def check_domain_name(name: str) -> None:
    """Raise BundleError for a name that cannot be a folder, a part of a URL and a label at once."""
    if not DOMAIN_NAME.fullmatch(name):
        raise BundleError(
            f"{name!r} cannot name a domain; take up to 64 letters, digits, hyphens and underscores, "
            "a letter or digit first"
        )


def file_record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(sha256=digest, size=os.fstat(file.fileno()).st_size)


def write_manifest(root: Path) -> str:
    """Record every file below `root`; returns the bundle's hash."""
    paths = sorted(_files_below(root) - {MANIFEST})
    for path in paths:
        _check_place(str(path))
    files = {str(path): asdict(file_record(root / path)) for path in paths}
    write_json(root / MANIFEST, {"format_version": FORMAT_VERSION, "files": files})
    return _hash_of(root)


def verify_files(root: Path) -> Manifest:
    """Check that `root` holds exactly the files that its manifest lists, each of them untouched.

    Raises IntegrityError, naming the first file at fault.
    """
    manifest = read_manifest(root)
    _check_complete(manifest)
    present = _files_below(root)
    for path, record in manifest.files.items():
        _verify_file(root, path, record)
    extra = sorted(present - manifest.files.keys() - {MANIFEST})
    if extra:
        raise IntegrityError(f"{extra[0]} is not in manifest.json; remove it, or import the bundle anew")
    return manifest


def verify_domain(root: Path, domain: str) -> Manifest:
    """Check one domain's files, and those of the backbone that are not its weights. Raises IntegrityError."""
    manifest = read_manifest(root)
    _check_complete(manifest)
    for path, record in manifest.files.items():
        if path in (BACKBONE_CONFIG, TOKENIZER) or path.parts[:2] == ("domains", domain):
            _verify_file(root, path, record)
    return manifest


def read_manifest(root: Path) -> Manifest:
    """Read and check the manifest alone, without looking at the files that it lists."""
    if not (root / MANIFEST).is_file():
        raise IntegrityError(f"{root} has no manifest.json, so it is not a bundle; name the folder that has one")
    _require_inside(root, MANIFEST)
    _check_size(MANIFEST, (root / MANIFEST).stat().st_size)
    content = read_json_object(root / MANIFEST)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"manifest.json: format_version is {version!r}, this program reads {FORMAT_VERSION}; import the bundle anew"
        )
    files = content.get("files")
    if not isinstance(files, dict) or content.keys() != {"format_version", "files"}:
        raise IntegrityError("manifest.json must have exactly format_version and files; import the bundle anew")
    records: dict[PurePosixPath, FileRecord] = {}
    for name, record in files.items():
        _check_place(name)
        path = PurePosixPath(name)
        records[path] = dataclass_from(FileRecord, record, f"manifest.json: {name}")
        _check_size(path, records[path].size)
    return Manifest(files=records, hash=_hash_of(root))


def _check_place(name: str) -> None:
    """A bundle's files have fixed places, so no name can lead out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise IntegrityError(f"manifest.json lists {name!r}, which leads out of the bundle; do not trust its source")
    is_domain_file = (
        len(path.parts) == 3
        and path.parts[0] == "domains"
        and DOMAIN_NAME.fullmatch(path.parts[1]) is not None
        and path.parts[2] in _DOMAIN_FILES + _OPTIONAL_DOMAIN_FILES
    )
    if str(path) != name or not (is_domain_file or path in _BACKBONE_FILES):
        raise IntegrityError(f"{name} has no place in a bundle; remove it, or import the bundle anew")


def _check_complete(manifest: Manifest) -> None:
    needed = list(_BACKBONE_FILES)
    needed += [PurePosixPath("domains") / domain / name for domain in manifest.domains for name in _DOMAIN_FILES]
    missing = [path for path in needed if path not in manifest.files]
    if missing:
        raise IntegrityError(f"manifest.json does not list {missing[0]}, which every bundle needs; import it anew")


def _verify_file(root: Path, path: PurePosixPath, record: FileRecord) -> None:
    file = root / path
    _require_inside(root, path)
    if not file.is_file():
        raise IntegrityError(f"{path} is missing; copy the bundle anew from its source")
    size = file.stat().st_size
    if size != record.size:
        raise IntegrityError(f"{path} has {size} bytes, the manifest says {record.size}; copy the bundle anew")
    digest = file_record(file).sha256
    if digest != record.sha256:
        raise IntegrityError(
            f"{path} was changed: its sha256 is {digest}, the manifest says {record.sha256}; copy the bundle anew"
        )


def _require_inside(root: Path, path: PurePosixPath) -> None:
    # Not Path.resolve, which raises for links that lead to themselves.
    if not Path(os.path.realpath(root / path)).is_relative_to(root.resolve()):
        raise IntegrityError(f"{path} is a link that leads out of the bundle; copy the file to its place")


def _check_size(path: PurePosixPath, size: int) -> None:
    most = MOST_BYTES[path.name]
    if size > most:
        raise IntegrityError(f"{path} has {size} bytes, of which at most {most} are read; do not trust its source")


def _files_below(root: Path) -> set[PurePosixPath]:
    """Links count as files, and are not followed."""
    found = set()
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found |= {PurePosixPath((Path(folder) / name).relative_to(root).as_posix()) for name in [*files, *links]}
    return found


def _hash_of(root: Path) -> str:
    return hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()
