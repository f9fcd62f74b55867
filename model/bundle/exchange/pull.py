"""Copies a bundle out of a store, verified before it is seen under its name.

A folder of pulled bundles has one folder for each, named by its hash. What is being pulled is in a hidden folder beside
them, which an interrupted pull leaves for the next one. Files that another bundle in the folder has are linked.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model.bundle.exchange.store import BUNDLE_HASH, BundleStore, retried
from model.bundle.folders import publish
from model.bundle.layout import MANIFEST, SIGNATURES
from model.bundle.manifest import FileRecord, Manifest, file_record, parse_manifest, read_manifest, verify_files
from model.bundle.signatures import TrustedKeys
from model.errors import BundleError, BundleStoreError, IntegrityError, UntrustedBundleError
from model.progress import Progress, no_progress

_CHUNK = 8 << 20
_SPARE_BYTES = 64 << 20
"""Space that a pull leaves free on the disk."""


@dataclass(frozen=True)
class Pulled:
    """Where a pulled bundle is, and what of it came from the store, in files and bytes."""

    bundle: str
    folder: Path
    num_files: int
    num_fetched: int
    bytes_fetched: int


def resolve(store: BundleStore, bundle: str | None) -> str:
    """The hash of the bundle that is meant: by the beginning of its hash, or else the latest.

    Raises BundleStoreError if there is none.
    """
    if bundle is not None:
        return store.find(bundle)
    found = store.latest().hash
    if found is None:
        raise BundleStoreError(f"{store} has no latest bundle; push one, or name one after #")
    return found


def pull(
    store: BundleStore,
    bundle: str,
    root: Path,
    *,
    trusted: TrustedKeys | None = None,
    progress: Progress = no_progress,
) -> Pulled:
    """Make `root` have the bundle of this hash, in a folder of that name. Does nothing if it is there and undamaged.

    Several processes may pull into a folder at once. Raises BundleStoreError, IntegrityError for what is not as its
    digest says, and UntrustedBundleError for a bundle that none of the trusted keys signed.
    """
    target = root / bundle
    with _alone(root, bundle):
        if _is_whole(target):
            return Pulled(bundle, target, len(read_manifest(target).files), 0, 0)
        if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
            raise BundleStoreError(f"{target} is not a folder that a bundle can replace; remove it, and pull again")
        manifest = _manifest_of(store, bundle)
        signatures = store.read_signatures(bundle)
        if trusted is not None:
            if signatures is None:
                raise UntrustedBundleError(f"{bundle} in {store} is not signed; sign it with vip5 bundle sign")
            trusted.check(bundle, manifest.document, signatures)
        partial = root / f".{bundle}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        fetched = _Fetching(store, root, partial, manifest, progress).all()
        (partial / MANIFEST).write_bytes(manifest.document)
        if signatures is not None:
            (partial / SIGNATURES).write_bytes(signatures)
        verify_files(partial)
        publish(partial, target)
    return Pulled(bundle, target, len(manifest.files), len(fetched), sum(record.size for record in fetched))


def _is_whole(target: Path) -> bool:
    try:
        return target.is_dir() and verify_files(target).hash == target.name
    except BundleError:
        return False


def _manifest_of(store: BundleStore, bundle: str) -> Manifest:
    manifest = parse_manifest(store.read_manifest(bundle))
    if manifest.hash != bundle:
        raise IntegrityError(f"the manifest of {bundle} in {store} was modified: its sha256 is {manifest.hash}")
    return manifest


@dataclass(frozen=True)
class _Fetching:
    """Brings the files of one bundle into a folder."""

    store: BundleStore
    root: Path
    partial: Path
    manifest: Manifest
    progress: Progress

    def all(self) -> list[FileRecord]:
        """Returns what came from the store."""
        self._remove_others()
        total = sum(record.size for record in self.manifest.files.values())
        missing = [path for path, record in self.manifest.files.items() if not self._is_here(path, record)]
        known = _known_files(self.root)
        wanted = [path for path in missing if not self._link(path, known.get(self.manifest.files[path]))]
        self._require_space(wanted)
        done = total - sum(self.manifest.files[path].size for path in wanted)
        for path in wanted:
            record = self.manifest.files[path]
            self._fetch(path, record, done, total)
            done += record.size
        self.progress("pulled", total, total)
        return [self.manifest.files[path] for path in wanted]

    def _remove_others(self) -> None:
        """Remove what an interrupted pull of a program that laid files out otherwise may have left."""
        parts = {f"{path}.part" for path in self.manifest.files}
        for folder, _, names in os.walk(self.partial):
            for name in names:
                path = PurePosixPath((Path(folder) / name).relative_to(self.partial))
                if path not in self.manifest.files and str(path) not in parts:
                    (Path(folder) / name).unlink()

    def _is_here(self, path: PurePosixPath, record: FileRecord) -> bool:
        place = self.partial / path
        return place.is_file() and place.stat().st_size == record.size and file_record(place) == record

    def _link(self, path: PurePosixPath, known: Path | None) -> bool:
        """Take the file from another bundle, if it is there and as its digest says."""
        if known is None:
            return False
        place = self.partial / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(known, place)
        except OSError:  # another file system, or one without links
            try:
                shutil.copyfile(known, place)
            except OSError:
                place.unlink(missing_ok=True)
                return False
        if file_record(place) == self.manifest.files[path]:
            return True
        place.unlink()
        return False

    def _require_space(self, wanted: list[PurePosixPath]) -> None:
        needed = sum(self.manifest.files[path].size - self._size_of_part(path) for path in wanted) + _SPARE_BYTES
        free = shutil.disk_usage(self.partial).free
        if needed > free:
            raise BundleStoreError(
                f"{self.root} has {free} bytes free, but the bundle needs {needed}; free some, or choose another folder"
            )

    def _fetch(self, path: PurePosixPath, record: FileRecord, done: int, total: int) -> None:
        """Fetch a file, from where an interrupted pull stopped; once more from its start if the result is wrong."""
        for is_last in (False, True):
            self._fetch_rest(path, record, done, total)
            part = self._part(path)
            if file_record(part) == record:
                part.replace(self.partial / path)
                return
            part.unlink()
            if is_last:
                raise IntegrityError(
                    f"{path} in {self.store} is not as its digest {record.sha256} says; push the bundle again with "
                    "--resend"
                )

    def _fetch_rest(self, path: PurePosixPath, record: FileRecord, done: int, total: int) -> None:
        part = self._part(path)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            start = file.tell()
            while start < record.size:
                end = min(start + _CHUNK, record.size)
                content = retried(lambda start=start, end=end: self._chunk(record, start, end))  # type: ignore[misc]
                file.write(content)
                start = end
                self.progress("pulled", done + start, total)

    def _chunk(self, record: FileRecord, start: int, end: int) -> bytes:
        found = self.store.read_object(record.sha256, start, end)
        if len(found) != end - start:
            raise BundleStoreError(
                f"{self.store} gave {len(found)} of the bytes {start} to {end} of object {record.sha256}; push the "
                "bundle again with --resend"
            )
        return found

    def _part(self, path: PurePosixPath) -> Path:
        return self.partial / f"{path}.part"

    def _size_of_part(self, path: PurePosixPath) -> int:
        part = self._part(path)
        return part.stat().st_size if part.is_file() else 0


def _known_files(root: Path) -> dict[FileRecord, Path]:
    """Files of the other bundles in the folder, by what their manifests say of them."""
    known = {}
    for folder in root.iterdir():
        if BUNDLE_HASH.fullmatch(folder.name) is None:
            continue
        try:
            files = read_manifest(folder).files
        except BundleError:
            continue
        known.update({record: folder / path for path, record in files.items()})
    return known


@contextmanager
def _alone(root: Path, bundle: str) -> Iterator[None]:
    """Wait until no other process pulls this bundle into the folder."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / f".{bundle}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BundleStoreError(f"{root} cannot hold bundles: {error.strerror}; choose another folder") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
