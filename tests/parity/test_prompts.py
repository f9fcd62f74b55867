"""Prompts against the token ids that the original code made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from model.prompts.assembly import PromptAssembler, PromptValues
from model.prompts.templates import TEMPLATES, Separator
from model.prompts.tokenizer import TextTokenizer
from tests.parity.golden import NUM_ITEMS, Case, Golden

INDICES = [str(number) for number in range(1, NUM_ITEMS + 1)]


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> TextTokenizer:
    return TextTokenizer.from_file(shared / "data/t5-tokenizer/tokenizer.json")


@pytest.fixture(scope="module")
def titles(golden: Golden) -> list[str | None]:
    named: list[str | None] = [None] * NUM_ITEMS
    for case in golden.cases.values():
        args = case.facts["args"]
        if args.get("title"):
            named[_row(args["item_id"])] = args["title"]
    return named


@pytest.fixture(scope="module")
def assembler(golden: Golden, tokenizer: TextTokenizer, titles: list[str | None]) -> PromptAssembler:
    visual_tokens = golden.layout.visual_tokens
    return PromptAssembler(tokenizer, INDICES, titles, visual_tokens=visual_tokens, max_tokens=1024)


def test_every_recorded_prompt_has_the_same_ids(golden: Golden, assembler: PromptAssembler) -> None:
    assert len(golden.cases) == 51
    for case in golden.cases.values():
        args = case.facts["args"]
        separator: Separator = "arrow" if args.get("separator") == "-> " else "comma"
        prompt = assembler.assemble(TEMPLATES[case.facts["template_id"]], _values(case), separator)
        assert prompt.input_ids.tolist() == case.facts["input_ids"], case.name
        assert prompt.whole_word_ids.tolist() == case.facts["whole_word_ids"], case.name
        assert prompt.category_ids.tolist() == case.facts["category_ids"], case.name
        assert [INDICES[row] for row in prompt.image_items] == case.facts["vis_items"], case.name
        assert prompt.num_tokens_untruncated == case.facts["n_tokens_untruncated"], case.name


def test_every_toys_identifier_has_the_recorded_tokens(assembler: PromptAssembler, shared: Path) -> None:
    recorded = json.loads((shared / "golden/common/item_tokens_toys.json").read_text())
    assert len(assembler.identifiers) == len(recorded) == NUM_ITEMS
    for row, tokens in enumerate(recorded):
        assert [*assembler.identifiers.row(row), 1] == tokens


def test_recorded_texts_tokenise_word_by_word(tokenizer: TextTokenizer, shared: Path) -> None:
    recorded = json.loads((shared / "golden/common/tokenization_cases.json").read_text())
    for case in recorded["cases"]:
        pieces = [_ids(tokenizer, piece) for piece in re.split(r"(<extra_id_\d+>|</s>|<pad>|<unk>)", case["text"])]
        ids = [token for piece in pieces for token in piece][: len(case["input_ids"]) - 1]
        assert [*ids, tokenizer.eos_id] == case["input_ids"], case["text"]
        if tokenizer.image_id - 1 not in ids:  # other sentinels than the image's are in no prompt
            starts = tokenizer.starts_word(np.asarray(ids, dtype=np.int64)).cumsum().tolist()
            assert [*starts, 0] == case["whole_word_ids"], case["text"]


def _ids(tokenizer: TextTokenizer, piece: str) -> list[int]:
    (special,) = tokenizer.identifiers([piece])
    return special if piece.startswith("<") and len(special) == 1 else tokenizer.words(piece)


def test_recorded_ids_decode_to_the_same_text(tokenizer: TextTokenizer, shared: Path) -> None:
    recorded = json.loads((shared / "golden/common/tokenization_cases.json").read_text())
    assert recorded["decode"]
    for case in recorded["decode"]:
        assert tokenizer.decode(case["ids"]) == case["text"]


def _row(item: str) -> int:
    return int(item) - 1


def _values(case: Case) -> PromptValues:
    args = case.facts["args"]
    return PromptValues(
        user_index=args["user_id"],
        user_name=args["user_desc"],
        history=tuple(map(_row, args.get("history", ()))),
        candidates=tuple(map(_row, args.get("candidates", ()))),
        item=_row(args["item_id"]) if "item_id" in args else None,
        feature=args.get("feature", ""),
        stars=str(args.get("star_rating", "")),
        headline=args.get("review_headline", ""),
    )
