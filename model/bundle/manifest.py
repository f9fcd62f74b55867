"""manifest.json lists a bundle's files and their digests; its own SHA-256 is the bundle's hash."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from model.bundle.documents import dataclass_from, parse_json_object, write_json
from model.bundle.layout import (
    ADAPTER_WEIGHTS,
    BACKBONE_CONFIG,
    BACKBONE_WEIGHTS,
    CATALOG,
    CODEBOOK,
    DOMAIN_SPEC,
    FEATURES,
    FORMAT_VERSION,
    IMAGES,
    MANIFEST,
    SIGNATURES,
    TOKENIZER,
    TRAINING_RECORD,
    USERS,
)
from model.bundle.opened_file import OpenedFile
from model.errors import BundleError, IntegrityError

DOMAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_SHA256 = re.compile(r"[0-9a-f]{64}")

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
    CODEBOOK: 1 << 30,
}
"""Size limits in bytes by file name, far above what models of this kind need; larger files are not even hashed."""

MOST_IMAGE_BYTES = 16 << 20

_BACKBONE_FILES = (BACKBONE_CONFIG, BACKBONE_WEIGHTS, TOKENIZER)
_DOMAIN_FILES = (DOMAIN_SPEC, ADAPTER_WEIGHTS, CATALOG)
_OPTIONAL_DOMAIN_FILES = (USERS, FEATURES, CODEBOOK, TRAINING_RECORD)


@dataclass(frozen=True)
class FileRecord:
    """Digest and size in bytes of one file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The files of a bundle, except manifest.json itself."""

    files: dict[PurePosixPath, FileRecord]
    record: FileRecord
    """Of manifest.json itself."""
    document: bytes = field(repr=False)
    """The bytes of manifest.json, which signatures are of."""

    @property
    def hash(self) -> str:
        return self.record.sha256

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted({path.parts[1] for path in self.files if path.parts[0] == "domains"}))


def check_domain_name(name: str) -> None:
    """Raise BundleError for a name that cannot be a folder, a URL segment and a metric label."""
    if not DOMAIN_NAME.fullmatch(name):
        raise BundleError(
            f"{name!r} cannot name a domain; use up to 64 letters, digits, hyphens and underscores, starting with a "
            "letter or digit"
        )


def file_record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(sha256=digest, size=os.fstat(file.fileno()).st_size)


def write_manifest(root: Path) -> str:
    """Record every file below `root`; returns the bundle's hash. Signatures of an earlier manifest are removed."""
    (root / SIGNATURES).unlink(missing_ok=True)
    paths = sorted(_files_below(root) - {MANIFEST})
    for path in paths:
        _check_place(str(path))
    files = {str(path): asdict(file_record(root / path)) for path in paths}
    write_json(root / MANIFEST, {"format_version": FORMAT_VERSION, "files": files})
    return file_record(root / MANIFEST).sha256


def verify_files(root: Path) -> Manifest:
    """Check that `root` has exactly the files that its manifest lists, all of them unmodified.

    Raises IntegrityError naming the first file that is missing, modified or not listed. Use `VerifiedFiles` for what is
    read afterwards, because a file may change after this check.
    """
    manifest = read_complete_manifest(root)
    for path, record in manifest.files.items():
        require_digest(path, record, digest_of(open_listed(root, path, record), path))
    check_only_listed(root, manifest)
    return manifest


def read_complete_manifest(root: Path) -> Manifest:
    """Read the manifest and check that it lists what every bundle needs. Raises IntegrityError and BundleError."""
    manifest = read_manifest(root)
    _check_complete(manifest)
    return manifest


def check_only_listed(root: Path, manifest: Manifest) -> None:
    """Raise IntegrityError for a file that the manifest does not list."""
    extra = sorted(_files_below(root) - manifest.files.keys() - {MANIFEST, SIGNATURES})
    if extra:
        raise IntegrityError(f"{extra[0]} is not in manifest.json; remove it, or import the bundle again")


def open_listed(root: Path, path: PurePosixPath, record: FileRecord) -> OpenedFile:
    """Open a file of the size that its record says. Raises IntegrityError."""
    _require_inside(root, path)
    if not (root / path).is_file():
        raise IntegrityError(f"{path} is missing; copy the bundle again from its source")
    try:
        file = OpenedFile(root / path)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error}; copy the bundle again from its source") from error
    if file.size != record.size:
        file.close()
        raise IntegrityError(f"{path} has {file.size} bytes, the manifest says {record.size}; copy the bundle again")
    return file


def require_digest(path: PurePosixPath, record: FileRecord, sha256: str) -> None:
    """Raise IntegrityError for another digest than the record's."""
    if sha256 != record.sha256:
        raise IntegrityError(
            f"{path} was modified: its sha256 is {sha256}, the manifest says {record.sha256}; copy the bundle again"
        )


def digest_of(file: OpenedFile, path: PurePosixPath) -> str:
    """The SHA-256 of a listed file, which is closed. Raises IntegrityError if it cannot be read."""
    try:
        return file.sha256()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error}; copy the bundle again from its source") from error
    finally:
        file.close()


def read_manifest(root: Path) -> Manifest:
    """Read and check only the manifest, not the files that it lists."""
    if not (root / MANIFEST).is_file():
        raise IntegrityError(f"{root} has no manifest.json, so it is not a bundle; give a bundle's folder")
    _require_inside(root, MANIFEST)
    return parse_manifest(bytes(_manifest_bytes(root)))


def parse_manifest(document: bytes) -> Manifest:
    """The manifest whose file has these bytes. Raises IntegrityError and BundleError."""
    content = parse_json_object(document, MANIFEST.name)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"manifest.json: format_version is {version!r}, but this program reads {FORMAT_VERSION}; import the bundle "
            "again"
        )
    files = content.get("files")
    if not isinstance(files, dict) or content.keys() != {"format_version", "files"}:
        raise IntegrityError("manifest.json must have exactly format_version and files; import the bundle again")
    records: dict[PurePosixPath, FileRecord] = {}
    for name, record in files.items():
        _check_place(name)
        path = PurePosixPath(name)
        records[path] = dataclass_from(FileRecord, record, f"manifest.json: {name}")
        _check_record(name, records[path])
        _check_size(path, records[path].size)
    return Manifest(records, FileRecord(hashlib.sha256(document).hexdigest(), len(document)), document)


def _check_record(name: str, record: FileRecord) -> None:
    """In a store, the digest is part of the name of an object."""
    if _SHA256.fullmatch(record.sha256) is None or record.size < 0:
        raise IntegrityError(
            f"manifest.json: {name} has the sha256 {record.sha256[:80]!r} and the size {record.size}; it must have 64 "
            "hexadecimal digits, and a size of 0 or more; do not trust its source"
        )


def _manifest_bytes(root: Path) -> memoryview:
    try:
        file = OpenedFile(root / MANIFEST)
        _check_size(MANIFEST, file.size)
        return file.content()
    except OSError as error:
        raise IntegrityError(f"manifest.json cannot be read: {error}; copy the bundle again from its source") from error


def _check_place(name: str) -> None:
    """A bundle's files have fixed paths, so no name can point outside it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise IntegrityError(f"manifest.json lists {name!r}, which is outside the bundle; do not trust its source")
    is_domain_file = (
        len(path.parts) == 3
        and path.parts[0] == "domains"
        and DOMAIN_NAME.fullmatch(path.parts[1]) is not None
        and path.parts[2] in _DOMAIN_FILES + _OPTIONAL_DOMAIN_FILES
    )
    if str(path) != name or not (is_domain_file or _is_image(path) or path in _BACKBONE_FILES):
        raise IntegrityError(f"{name} does not belong in a bundle; remove it, or import the bundle again")


def _is_image(path: PurePosixPath) -> bool:
    """Whether the path is that of a picture, at any depth below a domain's folder of pictures."""
    parts = path.parts
    return (
        len(parts) > 3 and parts[0] == "domains" and DOMAIN_NAME.fullmatch(parts[1]) is not None and parts[2] == IMAGES
    )


def _check_complete(manifest: Manifest) -> None:
    needed = list(_BACKBONE_FILES)
    needed += [PurePosixPath("domains") / domain / name for domain in manifest.domains for name in _DOMAIN_FILES]
    missing = [path for path in needed if path not in manifest.files]
    if missing:
        raise IntegrityError(f"manifest.json does not list {missing[0]}, which every bundle needs; import it again")


def _require_inside(root: Path, path: PurePosixPath) -> None:
    # Not Path.resolve, which raises for circular links.
    if not Path(os.path.realpath(root / path)).is_relative_to(root.resolve()):
        raise IntegrityError(f"{path} is a link to a file outside the bundle; replace it with a copy")


def _check_size(path: PurePosixPath, size: int) -> None:
    most = MOST_IMAGE_BYTES if _is_image(path) else MOST_BYTES[path.name]
    if size > most:
        raise IntegrityError(f"{path} has {size} bytes, the limit is {most}; do not trust its source")


def _files_below(root: Path) -> set[PurePosixPath]:
    """Links count as files and are not followed."""
    found = set()
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found |= {PurePosixPath((Path(folder) / name).relative_to(root).as_posix()) for name in [*files, *links]}
    return found
