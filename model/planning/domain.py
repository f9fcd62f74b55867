"""A served domain: an immutable snapshot of its slot, catalog, trie and prompt settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.columns import Scalar
from model.bundle.compiled_items import CompiledItems
from model.bundle.domain_files import DomainTables
from model.bundle.layout import DomainSpec
from model.bundle.users import Users
from model.decoding.eligibility import LeafMask
from model.decoding.trie import Trie
from model.degradation import Degradation, DegradationKind
from model.planning.boosts import NO_FACTORS, BoostFactors, DomainBoosts
from model.planning.filters import Filters
from model.planning.leaf_columns import LeafColumns
from model.prompts.assembly import PromptAssembler
from model.prompts.templates import Template
from model.prompts.tokenizer import TextTokenizer

_RATED = re.compile(r"\s*(?P<stars>\d+(\.\d+)?)\s*,\s*(?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class ServedDomain:
    """All that planning needs of a domain. Its weights are in the engine, at `slot`."""

    slot: int
    spec: DomainSpec
    bundle_hash: str
    catalog: Catalog
    users: Users | None
    tokenizer: TextTokenizer
    assembler: PromptAssembler
    trie: Trie
    leaves_of_rows: NDArray[np.int32] = field(repr=False)  # [N], leaf of the trie by catalog row
    rules: BoostFactors = NO_FACTORS
    """Boosts of all requests, unless they decline them."""
    filters: Filters = field(init=False, repr=False)
    columns: LeafColumns = field(init=False, repr=False)
    boosts: DomainBoosts = field(init=False, repr=False)

    @classmethod
    def of(cls, slot: int, files: DomainTables, tokenizer: TextTokenizer, bundle_hash: str) -> ServedDomain:
        """Tokenise the catalog's texts for prompts and build its trie, unless they are compiled already."""
        catalog = files.catalog
        compiled = files.compiled or CompiledItems.of(files.identifiers, catalog.indices, tokenizer)
        assembler = PromptAssembler(
            tokenizer,
            catalog.indices,
            catalog.titles,
            visual_tokens=files.spec.layout.visual_tokens,
            max_tokens=files.spec.prompts.max_tokens,
            tokens=compiled.tokens,
            templates=files.spec.templates,
        )
        return cls(
            slot=slot,
            spec=files.spec,
            bundle_hash=bundle_hash,
            catalog=catalog,
            users=files.users,
            tokenizer=tokenizer,
            assembler=assembler,
            trie=compiled.trie,
            leaves_of_rows=compiled.leaves_of_rows,
        )

    def __post_init__(self) -> None:
        columns = LeafColumns(self.catalog, self.trie)
        object.__setattr__(self, "filters", Filters(self.catalog, self.trie))
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "boosts", DomainBoosts(self.catalog, self.trie, columns, self.rules))

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def templates(self) -> Mapping[str, Template]:
        """VIP5's templates and the domain's own, by name."""
        return self.assembler.templates

    @property
    def degraded(self) -> tuple[Degradation, ...]:
        """Degradations of every answer of the domain."""
        if self.spec.trained:
            return ()
        detail = f"the weights of {self.name} were never tuned; its answers are meaningless"
        return (Degradation(DegradationKind.UNTRAINED_MODEL, detail),)

    def with_catalog(self, catalog: Catalog) -> ServedDomain:
        """The domain with changed columns of the same items. Shares the trie, and token pieces of equal titles."""
        has_same_titles = catalog.titles is self.catalog.titles
        assembler = self.assembler if has_same_titles else self.assembler.with_titles(catalog.titles)
        return replace(self, catalog=catalog, assembler=assembler)

    def with_rules(self, rules: BoostFactors) -> ServedDomain:
        """The domain with other boosts of its own."""
        return replace(self, rules=rules)

    def rows_of(self, leaves: NDArray[np.int64]) -> NDArray[np.int64]:
        """Catalog rows of a ranking's leaves."""
        return self.trie.rows_of_leaves[leaves]

    def eligible(self, where: Mapping[str, tuple[Scalar, ...]]) -> LeafMask:
        """Leaves of the active items that match a filter. Raises UnknownColumnError and InputError."""
        return self.filters.mask(where)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """Decode a text, without special tokens."""
        return self.tokenizer.decode(token_ids)

    @staticmethod
    def rated_text(text: str) -> tuple[float | None, str]:
        """Split `4.0 , the text`, an answer to C-7 or C-8, into rating and explanation; None without a rating."""
        match = _RATED.fullmatch(text)
        return (None, text) if match is None else (float(match["stars"]), match["text"])
