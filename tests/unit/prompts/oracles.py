"""Prompts as VIP5 builds them: the whole text first, then the classic T5 tokenizer over it, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from model.prompts.assembly import PromptValues
from model.prompts.templates import Separator, Template

IMAGE = "<extra_id_0>"
_SPECIAL = re.compile(r"<pad>|</s>|<unk>|<extra_id_[0-9]+>")

EncodePiece: TypeAlias = Callable[[str], list[int]]
TokenOf: TypeAlias = Callable[[int], str]


@dataclass(frozen=True)
class Oracle:
    """An independent tokenizer of plain text, and the id that stands for an image token."""

    encode_piece: EncodePiece
    token_of: TokenOf
    image_id: int
    eos_id: int = 1

    def input_ids(self, text: str) -> list[int]:
        """Ids of a whole prompt without `</s>`: split at image tokens, strip the pieces beside them, encode each."""
        ids: list[int] = []
        for number, piece in enumerate(text.split(IMAGE)):
            ids += [self.image_id] * (number > 0)
            ids += self.encode_piece(piece.strip())
        return ids

    def whole_word_ids(self, ids: Sequence[int]) -> list[int]:
        """Counts words and image tokens from 1; `</s>` is 0."""
        counts, count = [], 0
        for token_id in ids:
            count += token_id == self.image_id or self.token_of(token_id).startswith("▁")
            counts.append(count)
        return [*counts, 0]


@dataclass(frozen=True)
class Catalog:
    """What a prompt says of items."""

    indices: Sequence[str]
    titles: Sequence[str | None]
    visual_tokens: int

    @property
    def photo(self) -> str:
        return " ".join([IMAGE] * self.visual_tokens)


def text_of(template: Template, values: PromptValues, catalog: Catalog, separator: Separator) -> str:
    """The prompt's text; what comes from users cannot hold special tokens."""
    between = f" {(IMAGE + ' ') * catalog.visual_tokens}" + {"comma": ", ", "arrow": "-> "}[separator]

    def listed(rows: Sequence[int]) -> str:
        return between.join(catalog.indices[row] for row in rows) + (f" {catalog.photo}" if rows else "")

    return template.text.format(
        user_index=plain(values.user_index),
        user_name=plain(values.user_name),
        history=listed(values.history),
        candidates=listed(values.candidates),
        item_index="" if values.item is None else catalog.indices[values.item],
        title="" if values.item is None else plain(catalog.titles[values.item] or "unknown title"),
        photo=catalog.photo,
        feature=plain(values.feature),
        stars=plain(values.stars),
        headline=plain(values.headline),
    )


def images_of(template: Template, values: PromptValues) -> tuple[int, ...]:
    """Catalog rows of the images, in the order of the text; no template has both lists."""
    rows: tuple[int, ...] = ()
    if "{history}" in template.text:
        rows += values.history
    if "{candidates}" in template.text:
        rows += values.candidates
    if "{photo}" in template.text:
        assert values.item is not None
        rows += (values.item,)
    return rows


def plain(text: str) -> str:
    return _SPECIAL.sub(" ", text)
