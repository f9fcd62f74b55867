"""Copies a bundle into a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.bundle.exchange.store import BundleStore, Pointer, retried
from model.bundle.layout import MANIFEST, SIGNATURES
from model.bundle.manifest import FileRecord, file_record, verify_files
from model.errors import BundleStoreError, IntegrityError
from model.progress import Progress, no_progress


@dataclass(frozen=True)
class Pushed:
    """What a push did, in files and bytes; the rest was in the store already."""

    bundle: str
    num_files: int
    num_sent: int
    bytes_sent: int
    is_latest: bool


def push(
    root: Path,
    store: BundleStore,
    *,
    moves_latest: bool = True,
    expected_latest: str | None = None,
    sends_all: bool = False,
    progress: Progress = no_progress,
) -> Pushed:
    """Verify a bundle and copy what the store lacks of it; a push that was interrupted goes on where it was.

    With `moves_latest`, the pointer then names the bundle, unless it has moved meanwhile or, with `expected_latest`,
    names another bundle than this. `sends_all` replaces what is there, in case it was damaged. Raises IntegrityError
    and BundleStoreError.
    """
    manifest = verify_files(root)
    before = store.latest() if moves_latest else Pointer(None, 0)
    if moves_latest and expected_latest is not None and before.hash != expected_latest:
        raise BundleStoreError(
            f"latest of {store} is {before.hash or 'unset'}, not {expected_latest} as expected; look at it, and push "
            "again"
        )
    num_sent = bytes_sent = 0
    total = sum(record.size for record in manifest.files.values())
    done = 0
    for path, record in manifest.files.items():
        if sends_all or store.size_of_object(record.sha256) != record.size:
            _send(store, root / path, record)
            num_sent, bytes_sent = num_sent + 1, bytes_sent + record.size
        done += record.size
        progress("pushed", done, total)
    if (root / MANIFEST).read_bytes() != manifest.document:
        raise IntegrityError("manifest.json was changed while the bundle was pushed; push again")
    signatures = (root / SIGNATURES).read_bytes() if (root / SIGNATURES).exists() else None
    store.put_bundle(manifest.hash, manifest.document, signatures)
    if moves_latest and before.hash != manifest.hash:
        store.move_latest(manifest.hash, before)
    elif moves_latest:
        store.copy_latest()
    return Pushed(manifest.hash, len(manifest.files), num_sent, bytes_sent, moves_latest)


def _send(store: BundleStore, path: Path, record: FileRecord) -> None:
    """Upload a file; takes it back if it was changed meanwhile, since objects are never sent twice."""
    retried(lambda: store.put_object(record.sha256, str(path)))
    if file_record(path) != record:
        store.remove_object(record.sha256)
        raise IntegrityError(f"{path.name} was changed while it was pushed; restore it, and push again")
