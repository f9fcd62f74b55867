"""Where bundles come from: folders below the configured one, and a store that they are pulled from into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.bundle.exchange.place import StorePlace
from model.bundle.exchange.pull import pull, resolve
from model.bundle.exchange.store import BUNDLE_HASH, BundleStore
from model.bundle.signatures import TrustedKeys
from service.errors import UnknownBundleError
from service.versions.bundles import find_bundle

LATEST = "latest"
"""Name of the bundle that the store's pointer names now."""


@dataclass(frozen=True)
class BundleSource:
    """Finds bundles by name. With a store, a name may also be the hash of a bundle in it, or `latest`."""

    root: Path | None
    store: StorePlace | None = None
    trusted: TrustedKeys | None = None

    def find(self, name: str) -> tuple[str, Path]:
        """The name that stays true, a hash for what is in the store, and the folder; pulls what is not there.

        Raises UnknownBundleError, and BundleError kinds for what cannot be pulled.
        """
        if self.store is None or self.root is None or not (name == LATEST or BUNDLE_HASH.fullmatch(name)):
            return name, find_bundle(self.root, name)
        try:
            return name, find_bundle(self.root, name)
        except UnknownBundleError:
            store = BundleStore(self.store)
            pulled = pull(store, resolve(store, None if name == LATEST else name), self.root, trusted=self.trusted)
            return pulled.bundle, pulled.folder
