"""Audit of identifiers that are made of codes: which are told apart, which were trained on, and what they reveal."""

# N items, L levels

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from model.bundle.catalog import Catalog
from model.bundle.codebook import Codebook
from model.datasets.dataset import Dataset
from model.evaluation.audit.share import Share


@dataclass(frozen=True)
class CodeAudit:
    """Unless noted, shares of the catalog's items; examples are item ids."""

    not_of_codes: Share  # the index is not made of the codebook's words
    sharing_path: Share  # another item has the same codes but the last one
    on_unseen_paths: Share  # on a path that no trained item is on, which a model gives next to no probability
    targets_on_seen_paths: Share  # of test targets; examples are item ids
    new_targets_on_seen_paths: Share  # of test targets that no user bought in training
    used_codes: tuple[Share, ...]  # [L], of each level's codes; no examples
    full_paths: Share  # of the trained paths: no last code is free for a new item; no examples
    next_last_code: Share  # of test targets on the path of the item before them: the last code is the next one


def audit_codes(catalog: Catalog, codebook: Codebook, dataset: Dataset) -> CodeAudit:
    """`catalog` and `codebook` are the bundle's."""
    codes = {
        item_id: codebook.codes_of(index) for item_id, index in zip(catalog.item_ids, catalog.indices, strict=True)
    }
    paths = {item_id: found[:-1] for item_id, found in codes.items() if found is not None}
    num_on, seen = Counter(paths.values()), set(map(tuple, codebook.seen.tolist()))
    sequences, item_ids = dataset.sequences, dataset.catalog.item_ids
    tested = sequences.users("test").tolist()
    targets = [item_ids[sequences.target(user, "test")] for user in tested]
    trained = {item_ids[item] for user in range(len(sequences)) for item in sequences.seen(user, "train").tolist()}
    new = [item_id for item_id in targets if item_id not in trained]
    before = [item_ids[int(sequences.seen(user, "test")[-1])] for user in tested]
    pairs = [(codes.get(one), codes.get(other)) for one, other in zip(before, targets, strict=True)]
    lasts = [(one[-1], other[-1]) for one, other in pairs if one and other and one[:-1] == other[:-1]]
    used = [{path[level] for path in paths.values()} for level in range(len(codebook.sizes))]
    return CodeAudit(
        not_of_codes=Share.named([item_id for item_id, found in codes.items() if found is None], len(codes)),
        sharing_path=Share.named([item_id for item_id, path in paths.items() if num_on[path] > 1], len(codes)),
        on_unseen_paths=Share.named([item_id for item_id, path in paths.items() if path not in seen], len(codes)),
        targets_on_seen_paths=Share.named([each for each in targets if paths.get(each) in seen], len(targets)),
        new_targets_on_seen_paths=Share.named([each for each in new if paths.get(each) in seen], len(new)),
        used_codes=tuple(Share(len(each), size) for each, size in zip(used, codebook.sizes, strict=True)),
        full_paths=Share(sum(num_on[path] >= codebook.num_last for path in seen), len(seen)),
        next_last_code=Share(sum(other == one + 1 for one, other in lasts), len(lasts)),
    )
