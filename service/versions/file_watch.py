"""Compares the files of served bundles with what was verified, while they are served.

What is served is in memory or checked at every read, so a change does no harm at once. It does when the service starts
again or loads the bundle again, and it makes embeddings of a large file missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from model.bundle.opened_file import FileSignature, OpenedFile
from model.bundle.verified_files import FileSeal
from service.versions.domains import Domains

logger = logging.getLogger(__name__)

THOROUGH_S = 86_400.0
"""Interval at which all files are read, to find bytes that decayed without a trace in the file system."""
_MOST_NAMED = 3

_Place = tuple[Path, PurePosixPath, str]  # bundle, file and due digest


class FileWatch:
    """Knows which files differ from what was verified. A file is read again only if its signature has changed."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._seen: dict[_Place, tuple[FileSignature, str]] = {}  # signature and fault at the last look
        self._faults: dict[_Place, str] = {}

    @property
    def problems(self) -> list[str]:
        """Faults by bundle, with the remedy."""
        by_bundle: defaultdict[str, list[str]] = defaultdict(list)
        for (root, path, _), fault in sorted(self._faults.items()):
            by_bundle[root.name].append(f"{path} {fault}")
        return [_problem(name, faults) for name, faults in by_bundle.items()]

    async def check(self, *, is_thorough: bool = False) -> None:
        """Look at the files of versions that get traffic; `is_thorough` reads those too whose signature is the same."""
        before = self._faults
        self._faults = await asyncio.to_thread(self._look, self._seals(), is_thorough=is_thorough)
        for place, fault in self._faults.items():
            root, path, _ = place
            if before.get(place) != fault:
                logger.error("bundle_file_changed", extra={"bundle": root.name, "file": str(path), "fault": fault})

    def _seals(self) -> list[FileSeal]:
        servings = [serving for _, serving in self._domains.items()]
        versions = [version for serving in servings for version in serving.with_traffic]
        seals = {seal for version in versions for seal in version.placed.opened.files.seals}
        return sorted(seals, key=lambda seal: (seal.root, seal.path))

    def _look(self, seals: Iterable[FileSeal], *, is_thorough: bool) -> dict[_Place, str]:
        """The faults."""
        seen, faults = {}, {}
        for seal in seals:
            place = (seal.root, seal.path, seal.record.sha256)
            try:
                file = OpenedFile(seal.root / seal.path)
            except FileNotFoundError:
                faults[place] = "was removed"
                continue
            except OSError as error:
                faults[place] = f"cannot be read ({error.strerror})"
                continue
            fault = self._fault(seal, file, is_thorough=is_thorough)
            file.close()
            seen[place] = (file.signature, fault)
            if fault:
                faults[place] = fault
        self._seen = seen
        return faults

    def _fault(self, seal: FileSeal, file: OpenedFile, *, is_thorough: bool) -> str:
        signature, fault = self._seen.get((seal.root, seal.path, seal.record.sha256), (seal.signature, ""))
        if signature == file.signature and seal.is_by_file_alone and not is_thorough:
            return fault
        try:
            return seal.fault_of(file)
        except OSError as error:
            return f"cannot be read ({error.strerror})"


async def watch_files(watch: FileWatch, interval_s: float) -> None:
    """Check at this interval until cancelled, thoroughly once a day."""
    since_thorough_s = 0.0
    while True:
        await asyncio.sleep(interval_s)
        since_thorough_s += interval_s
        is_thorough = since_thorough_s >= THOROUGH_S
        await watch.check(is_thorough=is_thorough)
        if is_thorough:
            since_thorough_s = 0.0


def _problem(bundle: str, faults: Sequence[str]) -> str:
    more = len(faults) - _MOST_NAMED
    named = ", ".join(faults[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"the bundle {bundle} on disk is not the one that is served: {named}. Answers stay as they were verified; put "
        "the original files back, or load the new bundle (restart the service for its own bundle)"
    )
