"""VIP5's folders of image embeddings, of which broken files are counted."""

from __future__ import annotations

from pathlib import Path

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.importers.feature_folders import read_feature_folder
from model.datasets.faults import Faults
from model.errors import BundleError, DatasetError
from model.progress import Progress


def read_feature_folders(root: Path, catalog: Catalog, faults: Faults, progress: Progress) -> ItemFeatures:
    """Read the catalog's items from all `<item_id>.npy` at any depth, as `read_feature_folder` does.

    Broken files are skipped and counted in `faults`, which is told how files and catalog meet, too. Raises DatasetError
    if no embedding is found, and for folders of several encoders or of two widths.
    """
    try:
        found = read_feature_folder(root, catalog, progress)
    except BundleError as error:
        raise DatasetError(str(error)) from error
    for rejected in found.rejected:
        faults.add(rejected.rule, str(rejected))
    faults.notice(str(found.join))
    return found.features
