"""The files of a bundle as its manifest lists them: what is verified is what is used.

Each file is opened once. The bytes that were compared with the manifest are the bytes that are returned, so that nobody
can change a file between its verification and its use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

from model.bundle.feature_file import Verify
from model.bundle.layout import MANIFEST, SIGNATURES
from model.bundle.manifest import (
    FileRecord,
    Manifest,
    check_only_listed,
    digest_of,
    open_listed,
    read_complete_manifest,
    require_digest,
)
from model.bundle.opened_file import FileSignature, OpenedFile
from model.bundle.signatures import TrustedKeys, open_signatures
from model.errors import IntegrityError, Vip5Error


@dataclass(frozen=True)
class FileSeal:
    """A file as it was when it was verified, so that later changes can be noticed."""

    root: Path
    path: PurePosixPath
    record: FileRecord
    signature: FileSignature | None
    """None if unknown."""

    is_by_file_alone: ClassVar[bool] = True
    """Whether an unchanged file has no new fault."""

    def fault_of(self, file: OpenedFile) -> str:
        """How the file differs from what was verified; empty if it does not. Raises OSError."""
        return "" if file.size == self.record.size and file.sha256() == self.record.sha256 else "was changed"


@dataclass(frozen=True)
class SignatureSeal(FileSeal):
    """manifest.json.sig, which may gain and lose signatures as long as one is by a key that is trusted now."""

    trusted: TrustedKeys
    document: bytes = field(repr=False)
    """The bytes of manifest.json."""

    is_by_file_alone: ClassVar[bool] = False

    def fault_of(self, file: OpenedFile) -> str:
        try:
            self.trusted.check(self.root.name, self.document, file.content())
        except Vip5Error as error:
            return f"is not trusted any more ({error})"
        return ""


class VerifiedFiles:
    """Reads the files of one bundle.

    Raises BundleError and IntegrityError for an invalid manifest. With `trusted`, raises UntrustedBundleError for a
    manifest that none of these keys signed.
    """

    def __init__(self, root: Path, trusted: TrustedKeys | None = None) -> None:
        self.root = root
        self.manifest: Manifest = read_complete_manifest(root)
        self._seals = {MANIFEST: FileSeal(root, MANIFEST, self.manifest.record, None)}
        if trusted is not None:
            self._seals[SIGNATURES] = self._signed(trusted)

    def __contains__(self, path: PurePosixPath) -> bool:
        return path in self.manifest.files

    def read(self, path: PurePosixPath) -> memoryview:
        """The content of a listed file, in memory. Raises IntegrityError unless it is as the manifest says."""
        file, verify = self.open(path)
        try:
            content = file.content()
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error}; copy the bundle again from its source") from error
        finally:
            file.close()
        verify(hashlib.sha256(content).hexdigest())
        return content

    def open(self, path: PurePosixPath) -> tuple[OpenedFile, Verify]:
        """A listed file, and the check of its digest, which the caller computes of what it reads.

        Raises IntegrityError for a file that is missing or of another size.
        """
        record = self.manifest.files[path]
        file = open_listed(self.root, path, record)
        self._seals[path] = FileSeal(self.root, path, record, file.signature)
        return file, lambda sha256: require_digest(path, record, sha256)

    def verify(self, paths: Iterable[PurePosixPath]) -> None:
        """Verify those of the files that have not been read. Raises IntegrityError."""
        for path in paths:
            if path not in self._seals:
                file, verify = self.open(path)
                verify(digest_of(file, path))

    def verify_rest(self) -> None:
        """Verify all files that have not been read, and that there are no others. Raises IntegrityError."""
        self.verify(self.manifest.files)
        check_only_listed(self.root, self.manifest)

    def seals(self, *paths: PurePosixPath) -> tuple[FileSeal, ...]:
        """The manifest and its signatures, and what was read or verified of these paths and below them."""
        wanted = (MANIFEST, SIGNATURES, *paths)
        return tuple(seal for path, seal in self._seals.items() if any(path.is_relative_to(each) for each in wanted))

    def _signed(self, trusted: TrustedKeys) -> SignatureSeal:
        file = open_signatures(self.root)
        try:
            content = file.content()
        except OSError as error:
            raise IntegrityError(f"{SIGNATURES} cannot be read: {error}; copy the bundle again") from error
        finally:
            file.close()
        trusted.check(self.root.name, self.manifest.document, content)
        record = FileRecord(hashlib.sha256(content).hexdigest(), file.size)
        return SignatureSeal(self.root, SIGNATURES, record, file.signature, trusted, self.manifest.document)
