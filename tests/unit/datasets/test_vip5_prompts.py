"""Prompts and targets of a preprocessed folder are the texts that the original's loader writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.bundle.columns import strings
from model.datasets.dataset import Dataset, Split
from model.datasets.faults import Faults
from model.datasets.vip5_folder import read_vip5_folder
from model.prompts.assembly import PromptAssembler, PromptValues
from model.prompts.templates import TEMPLATES
from model.prompts.tokenizer import TextTokenizer
from tests.tiny import tiny_tokenizer
from tests.unit.datasets.sources import vip5_folder
from tests.unit.prompts.oracles import Oracle

P = "<extra_id_0> <extra_id_0>"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return read_vip5_folder(vip5_folder(tmp_path), "toys", Faults())


def prompt_of(dataset: Dataset, template: str, values: PromptValues) -> list[int]:
    assembler = PromptAssembler(
        TextTokenizer(tiny_tokenizer()),
        dataset.catalog.indices,
        dataset.catalog.titles,
        visual_tokens=2,
        max_tokens=1024,
    )
    ids: list[int] = assembler.assemble(TEMPLATES[template], values).input_ids.tolist()
    return ids


def ids_of(text: str) -> list[int]:
    """The whole text by the classic tokenizer."""
    tokenizer = tiny_tokenizer()
    oracle = Oracle(
        encode_piece=lambda piece: tokenizer.encode(piece, add_special_tokens=False).ids,
        token_of=lambda token_id: tokenizer.id_to_token(token_id) or "",
        image_id=TextTokenizer(tokenizer).image_id,
    )
    return [*oracle.input_ids(text), oracle.eos_id]


def user_values(dataset: Dataset, user: int) -> PromptValues:
    table = dataset.users.table
    return PromptValues(user_index=strings(table["index"])[user], user_name=strings(table["name"])[user])


@pytest.mark.parametrize(
    ("template", "split", "text", "target"),
    [
        (
            "A-3",
            "test",
            (
                f"Here is the purchase history list of user_1 : \n 1 {P}, 2 {P}, 3 {P}, 4 {P} \n "
                "try to recommend next item to the user"
            ),
            "5",
        ),
        (
            "A-4",
            "val",
            (
                f"Given the following purchase history of Ann Lee : \n 1 {P}, 2 {P}, 3 {P} \n "
                "predict next possible item for the user"
            ),
            "4",
        ),
    ],
)
def test_a_history_prompt_holds_what_comes_before_the_target(
    dataset: Dataset, template: str, split: Split, text: str, target: str
) -> None:
    assert split != "train"
    history = tuple(dataset.sequences.seen(0, split).tolist())
    values = user_values(dataset, 0)
    values = PromptValues(user_index=values.user_index, user_name=values.user_name, history=history)
    assert prompt_of(dataset, template, values) == ids_of(text)
    assert dataset.catalog.indices[dataset.sequences.target(0, split)] == target


def test_a_list_of_candidates_is_the_given_negatives_and_the_target(dataset: Dataset) -> None:
    candidates = np.append(dataset.negatives[1], dataset.sequences.target(1, "test"))
    values = PromptValues(user_index="2", user_name="Bob", candidates=tuple(candidates.tolist()))
    text = f"Which item of the following to recommend for Bob ? \n 3 {P}, 4 {P}, 5 {P}, 1 {P}"
    assert prompt_of(dataset, "B-5", values) == ids_of(text)


@pytest.mark.parametrize(
    ("number", "template", "text"),
    [
        (
            0,
            "C-9",
            (
                "Based on the feature word dice , generate an explanation for user_1 about this product : "
                f"toy &amp; game 1 {P}"
            ),
        ),
        (3, "C-12", f"According to the feature word card , generate a 4-star explanation for Ann Lee about item_5 {P}"),
        (
            1,
            "C-2",
            (
                "Given the following review headline \n headline of 2 \n can you help generate an explanation of "
                f"user_2 for item_2 {P} ?"
            ),
        ),
    ],
)
def test_an_explanation_prompt_is_made_of_its_review(dataset: Dataset, number: int, template: str, text: str) -> None:
    review = dataset.reviews[number]
    user = user_values(dataset, review.user)
    assert review.star_rating is not None
    values = PromptValues(
        user_index=user.user_index,
        user_name=user.user_name,
        item=review.item,
        feature=review.feature or "",
        stars=f"{review.star_rating:.0f}",
        headline=review.headline or "",
    )
    assert prompt_of(dataset, template, values) == ids_of(text)


def test_an_item_without_a_title_is_called_unknown(dataset: Dataset) -> None:
    values = PromptValues(user_index="1", user_name="Ann Lee", item=dataset.catalog.indices.index("4"))
    text = f"For Ann Lee, do you think it is good to recommend unknown title {P} ?"
    assert prompt_of(dataset, "B-3", values) == ids_of(text)
