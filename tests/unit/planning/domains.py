"""A served domain without weights, which planning does not need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.bundle.catalog import Catalog
from model.bundle.domain_files import DomainFiles
from model.bundle.identifiers import tokenise_identifiers
from model.bundle.layout import DomainSpec, PromptDefaults
from model.bundle.users import Users
from model.planning.domain import ServedDomain
from model.prompts.tokenizer import TextTokenizer
from tests.tiny import TINY_LAYOUT, tiny_catalog, tiny_tokenizer

ANN = {"user_id": "u7", "index": "77", "name": "Ann"}
NAMELESS = {"user_id": "u8", "index": "88", "name": None}


def tiny_domain(
    *,
    prompts: PromptDefaults | None = None,
    length_penalty: float = 0.0,
    users: Sequence[Mapping[str, object]] = (ANN, NAMELESS),
    catalog: Catalog | None = None,
) -> ServedDomain:
    """30 toys, `item-10`, `item-20` and `item-30` inactive; no table of users where none is given."""
    catalog = tiny_catalog(30) if catalog is None else catalog
    tokenizer = TextTokenizer(tiny_tokenizer())
    files = DomainFiles(
        spec=DomainSpec("toys", TINY_LAYOUT, "", prompts=prompts or PromptDefaults(), length_penalty=length_penalty),
        adapter={},
        catalog=catalog,
        identifiers=tokenise_identifiers(catalog.indices, catalog.item_ids, tokenizer, "catalog"),
        users=Users.from_rows(users) if users else None,
        features=None,
    )
    return ServedDomain.of(0, files, tokenizer, "a" * 64)


def item(number: int) -> str:
    return f"item-{number}"


def row(number: int) -> int:
    return number - 1


def eligible_numbers(domain: ServedDomain, is_eligible: Sequence[bool]) -> set[int]:
    """Numbers of the toys whose leaves are eligible."""
    return {
        int(catalog_row) + 1
        for catalog_row, is_in in zip(domain.trie.rows_of_leaves, is_eligible, strict=True)
        if is_in
    }
