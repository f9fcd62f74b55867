"""The bundle that the service serves, pulled first if the setting is the URL of a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from model.bundle.exchange.place import StorePlace, is_url
from model.bundle.exchange.pull import pull, resolve
from model.bundle.exchange.store import BundleStore
from model.bundle.signatures import trusted_keys
from model.progress import Progress, no_progress
from service.settings.fields import PREFIX
from service.settings.loading import load_settings
from service.settings.settings import Settings


def load_with_bundle(overrides: Mapping[str, object], progress: Progress = no_progress) -> Settings:
    """The settings of a service whose bundle is on this machine.

    Raises SettingsError, and BundleError kinds for a bundle that cannot be pulled.
    """
    given = overrides.get("bundle") or os.environ.get(f"{PREFIX}BUNDLE")
    if given is None or not is_url(str(given)):
        return load_settings(overrides)
    place = StorePlace.parse(str(given))
    settings = load_settings({**overrides, "bundle": Path(place.url)})
    root = settings.pulled_bundles
    store = BundleStore(place)
    pulled = pull(
        store, resolve(store, place.bundle), root, trusted=trusted_keys(settings.trusted_keys), progress=progress
    )
    update = {
        "bundle": pulled.folder,
        "bundles_root": root,
        "bundle_store": settings.bundle_store or place.url,
        "journal": settings.journal or str(root / f"{place.name}.journal.jsonl"),
        "history_file": settings.history_file or root / f"{place.name}.histories.jsonl",
    }
    return settings.model_copy(update=update)
