"""Samples of a round, shared out by length among the batches of one kind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from model.training.batches import Example, Examples
from model.training.config import read_run
from model.training.preparation import Preparation, prepare
from model.training.sampling import family_of
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run

SIZE, NUM_BATCHES = 4, 40


def examples(preparation: Preparation, round_length: int) -> list[list[Example]]:
    (domain,) = preparation.domains
    drawn = Examples(
        [domain.sampler],
        [domain.images],
        split="train",
        seed=5,
        batch_size=SIZE,
        num_batches=NUM_BATCHES,
        round_length=round_length,
    )
    return [[drawn[batch * SIZE + place] for place in range(SIZE)] for batch in range(NUM_BATCHES)]


def family(preparation: Preparation, batch: list[Example]) -> str:
    templates = preparation.domains[0].sampler.assembler.templates
    (found,) = {family_of(templates[example.sample.template]) for example in batch}
    return found


def padding(batches: list[list[Example]]) -> int:
    lengths = [[example.sample.prompt.num_tokens for example in batch] for batch in batches]
    return sum(max(each) * len(each) - sum(each) for each in lengths)


def test_a_round_has_the_samples_of_its_numbers_in_batches_of_the_same_kinds(tmp_path: Path) -> None:
    preparation = prepare(read_run(write_run(tmp_path, FROM_SCRATCH)))
    drawn, shared = examples(preparation, 1), examples(preparation, 16)

    def contents(batches: list[list[Example]]) -> Counter[tuple[object, ...]]:
        return Counter(
            (each.sample.template, tuple(each.sample.prompt.input_ids.tolist()), each.sample.target_ids)
            for batch in batches
            for each in batch
        )

    for start in range(0, NUM_BATCHES - 15, 16):  # the run ends within another round
        assert contents(drawn[start : start + 16]) == contents(shared[start : start + 16])
    assert [family(preparation, batch) for batch in drawn] == [family(preparation, batch) for batch in shared]
    assert padding(shared) < 0.7 * padding(drawn)
