"""Assembly of prompts from pieces that were tokenised when the domain was loaded.

Only a request's own texts (a user's name, a headline) are tokenised per request. The result equals tokenising the whole
text, because T5's pieces never cross a space and all pieces are split at spaces.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.prompts.prompt import Ids, Prompt
from model.prompts.templates import SEPARATORS, Separator, Template, with_own
from model.prompts.tokenizer import TextTokenizer

UNKNOWN_TITLE = "unknown title"
ITEM_PREFIX = "item_"
_ARGUMENT = re.compile(r"(?P<prefix>[^\s{]*)\{(?P<name>\w+)\}(?P<suffix>\S*)")
_TITLES_KEPT = 4096
_TOKENISED_AT_ONCE = 256
"""The tokenizer keeps other threads from running while it makes its results: 1 to 2 ms for so many texts."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Token ids of many texts in one array; row i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: Ids
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> TokenRows:
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(offsets[-1]))
        return cls(flat=flat, offsets=offsets)

    @classmethod
    def of_texts(cls, texts: Sequence[str], tokenizer: TextTokenizer) -> TokenRows:
        """Tokens of identifiers, in pieces: the tokenizer's results take fifty times the memory of their ids.

        An event loop in another thread goes on between the pieces.
        """
        starts = range(0, max(1, len(texts)), _TOKENISED_AT_ONCE)
        pieces = (texts[start : start + _TOKENISED_AT_ONCE] for start in starts)
        return cls.joined([cls.of(tokenizer.identifiers(piece)) for piece in pieces])

    @classmethod
    def joined(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """The rows of all parts, of which there is at least one."""
        begins = np.cumsum([0, *(len(part.flat) for part in parts)])
        ends = [part.offsets[1:] + begin for part, begin in zip(parts, begins, strict=False)]
        return cls(np.concatenate([part.flat for part in parts]), np.concatenate([parts[0].offsets[:1], *ends]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> Ids:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of tokens of some rows."""
        return self.offsets[rows + 1] - self.offsets[rows]


@dataclass(frozen=True, eq=False)
class ItemTokens:
    """Tokens of the items' indices in prompts, [N] each."""

    identifiers: TokenRows
    prefixed: TokenRows  # after `item_`: T5's pieces depend on what precedes them in a word

    @classmethod
    def of(cls, identifiers: TokenRows, indices: Sequence[str], tokenizer: TextTokenizer) -> ItemTokens:
        """Of the indices, whose own tokens are known."""
        return cls(identifiers, _prefixed(indices, tokenizer))

    def grown(self, identifiers: TokenRows, added: Sequence[str], tokenizer: TextTokenizer) -> ItemTokens:
        """With more items at the end, whose indices are `added`; `identifiers` are those of all items."""
        return ItemTokens(identifiers, TokenRows.joined([self.prefixed, _prefixed(added, tokenizer)]))


@dataclass(frozen=True)
class PromptValues:
    """Arguments of a template; items are catalog rows. Only those that the template needs are required."""

    user_index: str = ""
    user_name: str = ""
    history: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()
    item: int | None = None
    feature: str = ""
    stars: str = ""
    headline: str = ""


@dataclass(frozen=True)
class _Place:
    """The position of an argument, with the text that is attached to it on either side."""

    name: str
    prefix: str
    suffix: str


class _Text:
    """The tokens of a prompt so far. Those beyond the limit are counted, and need not be added."""

    def __init__(self, max_tokens: int) -> None:
        self.tokens: list[Ids] = []
        self.images: list[int] = []
        self.num_tokens = 0
        self._max_tokens = max_tokens

    @property
    def is_full(self) -> bool:
        return self.num_tokens >= self._max_tokens

    def append(self, tokens: Ids) -> None:
        self.tokens.append(tokens)
        self.num_tokens += len(tokens)


class PromptAssembler:
    """Assembles the prompts of one domain.

    `indices` and `titles` are the items' texts in catalog order, `tokens` those of the indices, if they are known
    already. `templates` are the domain's own, which `with_own` has accepted.
    """

    def __init__(  # noqa: PLR0913  # what a prompt may be made of
        self,
        tokenizer: TextTokenizer,
        indices: Sequence[str],
        titles: Sequence[str | None],
        *,
        visual_tokens: int,
        max_tokens: int,
        tokens: ItemTokens | None = None,
        templates: Sequence[Template] = (),
    ) -> None:
        self.templates = with_own(templates)
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        tokens = tokens or ItemTokens.of(TokenRows.of_texts(indices, tokenizer), indices, tokenizer)
        self.identifiers, self._prefixed = tokens.identifiers, tokens.prefixed
        self._end = _ids([tokenizer.eos_id])
        self._photo = np.full(visual_tokens, tokenizer.image_id, dtype=np.int64)
        self._separators: dict[Separator, Ids] = {name: self._after_item(text) for name, text in SEPARATORS.items()}
        self._own_separators = {
            name: self._after_item(each.separator)
            for name, each in self.templates.items()
            if each.separator is not None
        }
        self._compiled = {name: tuple(self._compile(each.text)) for name, each in self.templates.items()}
        self._take_titles(titles)

    @property
    def tokens_per_item(self) -> float:
        """Mean number of tokens of an item of a history, with its image and separator."""
        return len(self.identifiers.flat) / max(1, len(self.identifiers)) + len(self._separators["comma"])

    def with_titles(self, titles: Sequence[str | None]) -> Self:
        """An assembler of the same items with other titles."""
        renamed = copy.copy(self)
        renamed._take_titles(titles)  # noqa: SLF001 - a copy of this very class
        return renamed

    def assemble(self, template: Template, values: PromptValues, separator: Separator = "comma") -> Prompt:
        """Fill a template; a prompt that exceeds the domain's maximum is cut at the end, as in VIP5."""
        text = _Text(self._max_tokens)
        between = self._own_separators.get(template.template_id, self._separators[separator])
        if template.most_items is not None:
            values = replace(values, history=values.history[-template.most_items :])
        for piece in self._compiled[template.template_id]:
            if isinstance(piece, _Place):
                self._fill(piece, values, between, text)
            else:
                text.append(piece)
        return self._finish(text)

    def _take_titles(self, titles: Sequence[str | None]) -> None:
        self._titles = titles
        self._title_tokens = lru_cache(maxsize=_TITLES_KEPT)(self._tokenise_title)

    def _compile(self, text: str) -> Iterable[Ids | _Place]:
        literal: list[str] = []
        for word in text.split():
            match = _ARGUMENT.fullmatch(word)
            if match is None:
                literal.append(word)
                continue
            if literal:
                yield _ids(self._tokenizer.words(" ".join(literal)))
                literal = []
            yield _Place(name=match["name"], prefix=match["prefix"], suffix=match["suffix"])
        if literal:
            yield _ids(self._tokenizer.words(" ".join(literal)))

    def _after_item(self, separator: str) -> Ids:
        """Tokens between an item's identifier and the next one: its image, and the separator."""
        return np.concatenate([self._photo, _ids(self._tokenizer.words(separator))])

    def _fill(self, place: _Place, values: PromptValues, between: Ids, text: _Text) -> None:
        match place.name:
            case "history":
                self._add_items(values.history, between, text)
            case "candidates":
                self._add_items(values.candidates, between, text)
            case "photo":
                text.images.append(_given(values.item))
                text.append(self._photo)
            case "item_index":
                rows = self._prefixed if place.prefix else self.identifiers
                text.append(rows.row(_given(values.item)))
            case "title":
                text.append(self._title_tokens(_given(values.item)))
            case name:
                value = str(getattr(values, name))
                text.append(_ids(self._tokenizer.words(f"{place.prefix}{value}{place.suffix}")))

    def _add_items(self, rows: Sequence[int], between: Ids, text: _Text) -> None:
        if not rows:
            return
        text.images.extend(rows)
        flat, tokens, num_between = self.identifiers.flat, text.tokens, len(between)
        offset = self.identifiers.offsets.item  # gives Python's integers, which index faster than numpy's
        for place, row in enumerate(rows):
            if text.is_full:  # the rest is cut anyway, and may be long
                left = self.identifiers.lengths(np.asarray(rows[place:], dtype=np.int64))
                text.num_tokens += int(left.sum()) + num_between * (len(left) - 1) + len(self._photo)
                return
            start, end = offset(row), offset(row + 1)
            tokens += (flat[start:end], between)
            text.num_tokens += end - start + num_between
        tokens[-1] = self._photo
        text.num_tokens += len(self._photo) - num_between

    def _tokenise_title(self, row: int) -> Ids:
        return _ids(self._tokenizer.words(self._titles[row] or UNKNOWN_TITLE))

    def _finish(self, text: _Text) -> Prompt:
        input_ids = np.concatenate([*text.tokens, self._end])[: self._max_tokens]
        input_ids[-1] = self._tokenizer.eos_id
        whole_word_ids = self._tokenizer.starts_word(input_ids).cumsum()
        whole_word_ids[-1] = 0
        return Prompt(
            input_ids=input_ids,
            whole_word_ids=whole_word_ids,
            category_ids=(input_ids == self._tokenizer.image_id).astype(np.int64),
            image_items=tuple(text.images) if len(self._photo) else (),
            num_tokens_untruncated=text.num_tokens + 1,
        )


def _prefixed(indices: Sequence[str], tokenizer: TextTokenizer) -> TokenRows:
    return TokenRows.of_texts([f"{ITEM_PREFIX}{index}" for index in indices], tokenizer)


def _ids(ids: Sequence[int]) -> Ids:
    return np.asarray(ids, dtype=np.int64)


def _given(item: int | None) -> int:
    assert item is not None, "the template needs an item"
    return item
