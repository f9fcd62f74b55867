"""What is drawn for training, against the facts of VIP5's trainer."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle.users import Users
from model.datasets.dataset import Dataset, Provenance, Sequences
from model.errors import TrainingError
from model.prompts.prompt import Prompt
from model.prompts.templates import TEMPLATES
from model.prompts.tokenizer import TextTokenizer
from model.training.config import Prompts
from model.training.sampling import DomainSampler, Kind, Sample, SampledSplit, all_kinds, family_of, rating_around
from tests.tiny import tiny_catalog, tiny_tokenizer
from tests.unit.training.tiny_data import NUM_USERS, tiny_dataset

DATASET = tiny_dataset()
TOKENIZER = TextTokenizer(tiny_tokenizer())


def sampler(prompts: Prompts | None = None) -> DomainSampler:
    return DomainSampler(DATASET, TOKENIZER, prompts or Prompts(num_candidates=10), visual_tokens=2)


def draws(template: str, count: int = 300, **options: object) -> list[Sample]:
    """Samples of one template."""
    prompts = Prompts(num_candidates=10, templates=(template,), **options)  # type: ignore[arg-type]  # options vary
    drawn = sampler(prompts)
    kind = Kind(0, family_of(TEMPLATES[template]), (TEMPLATES[template],), 1.0)
    return [drawn.draw(kind, "train", np.random.default_rng(seed)) for seed in range(count)]


def user_of(prompt: Prompt) -> int:
    """The row of the user whom an A-3 prompt names."""
    match = re.search(r"user_(\d+)", TOKENIZER.decode(prompt.input_ids.tolist()))
    assert match is not None
    return int(match[1]) - 1


def target_row(sample: Sample) -> int:
    return DATASET.catalog.indices.index(TOKENIZER.decode(sample.target_ids[:-1]))


def test_targets_are_the_last_three_items_before_the_held_out_ones() -> None:
    places = set()
    for sample in draws("A-3"):
        user = user_of(sample.prompt)
        items = DATASET.sequences.of(user).tolist()
        place, last = items.index(target_row(sample)), len(items) - 3
        assert max(2, last - 2) <= place <= last or (place == last == 1)
        places.add(last - place)
    assert places == {0, 1, 2}


def test_a_history_is_what_comes_before_its_target_from_one_of_the_first_three_items() -> None:
    starts = set()
    for sample in draws("A-3"):
        items = DATASET.sequences.of(user_of(sample.prompt)).tolist()
        place = items.index(target_row(sample))
        history = list(sample.prompt.image_items)
        start = items.index(history[0])
        assert history == items[start:place]
        starts.add(start)
    assert starts == {0, 1, 2}


def test_all_positions_are_predicted_if_asked_for() -> None:
    places = set()
    for sample in draws("A-3", count=800, targets="all"):
        items = DATASET.sequences.of(user_of(sample.prompt)).tolist()
        places.add(items.index(target_row(sample)))
    assert places == set(range(1, 7))


def test_nothing_held_out_is_ever_in_a_training_prompt_or_target() -> None:
    for template in ("A-3", "A-7", "B-1", "B-5"):
        for sample in draws(template, count=150):
            text = TOKENIZER.decode(sample.prompt.input_ids.tolist())
            if template == "A-3":
                user = user_of(sample.prompt)
                held_out = set(DATASET.sequences.of(user)[-2:].tolist())
                assert not held_out & {*sample.prompt.image_items, target_row(sample)}, text


def test_half_of_the_yes_no_questions_are_about_an_item_that_the_user_never_had() -> None:
    yes = tuple(TOKENIZER.words("yes"))
    counts = {True: 0, False: 0}
    for sample in draws("B-1", count=400):
        had = set(DATASET.sequences.of(user_of(sample.prompt)).tolist())
        is_yes = sample.target_ids[:-1] == yes
        counts[is_yes] += 1
        assert (sample.prompt.image_items[0] in had) == is_yes
    assert 150 < counts[True] < 250


def test_a_candidate_list_holds_the_target_once_among_items_that_the_user_never_had() -> None:
    places = set()
    for sample in draws("B-8", count=150):
        user = user_of(sample.prompt)
        candidates = list(sample.prompt.image_items)
        assert len(set(candidates)) == len(candidates) == 10
        had = set(DATASET.sequences.seen(user, "train").tolist())
        assert {item for item in candidates if item in set(DATASET.sequences.of(user).tolist())} == {target_row(sample)}
        assert target_row(sample) in had
        places.add(candidates.index(target_row(sample)))
    assert len(places) == 10


def satiated_sampler(*, full: int, templates: tuple[str, ...]) -> DomainSampler:
    """Of ten items, the first `full` of four users had all."""
    histories = [list(range(10)) if user < full else [user, 5, 6, 7] for user in range(4)]
    dataset = Dataset(
        provenance=Provenance(name="full", source="made by a test"),
        catalog=tiny_catalog(10),
        users=Users.from_rows({"user_id": f"u{n}", "index": str(n)} for n in range(1, 5)),
        sequences=Sequences(
            np.concatenate(histories).astype(np.int64), np.cumsum([0, *map(len, histories)]).astype(np.int64)
        ),
    )
    return DomainSampler(dataset, TOKENIZER, Prompts(num_candidates=5, templates=templates), visual_tokens=2)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("template", ["A-7", "B-1", "B-5", "B-8"])
def test_a_user_who_had_every_item_is_not_asked_what_needs_another_item(template: str, split: SampledSplit) -> None:
    drawn = satiated_sampler(full=2, templates=(template,))
    kinds = [kind for kind in drawn.kinds(0, split) if kind.templates == (TEMPLATES[template],)]
    assert len(kinds) == 1
    texts = {
        TOKENIZER.decode(drawn.draw(kinds[0], split, np.random.default_rng(seed)).prompt.input_ids.tolist())
        for seed in range(60)
    }
    asked = {int(match[1]) for text in texts if (match := re.search(r"(?:user_|u)(\d+)", text))}
    assert asked == {3, 4}
    assert drawn.num_without_negatives == 2


def test_where_everybody_had_every_item_only_the_next_item_is_asked_for() -> None:
    drawn = satiated_sampler(full=4, templates=("A-3", "A-7", "B-1", "B-8"))
    asked = [kind.templates for kind in drawn.kinds(0, "train") if kind.templates[0].task != "explanation"]
    assert asked == [(TEMPLATES["A-3"],)]
    assert drawn.draw(drawn.kinds(0, "train")[0], "train", np.random.default_rng(0)).template == "A-3"


def test_both_separators_are_drawn() -> None:
    texts = [TOKENIZER.decode(sample.prompt.input_ids.tolist()) for sample in draws("A-3", count=100)]
    arrows = sum("->" in text for text in texts)
    assert 25 < arrows < 75


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name.startswith("C")])
def test_explanations_answer_for_the_user_and_item_of_their_review(template: str) -> None:
    for sample in draws(template, count=20):
        text = TOKENIZER.decode(sample.target_ids[:-1])
        match = re.search(r"for user (\d+)$", text)
        assert match is not None
        user = int(match[1])
        review = next(review for review in DATASET.reviews if review.user == user)
        assert review.split == "train"
        assert sample.prompt.image_items == (review.item,)
        rated = re.match(r"\d\.\d ?, the toy", text)
        assert (rated is not None) == (template in {"C-7", "C-8"})


@given(st.integers(1, 5), st.integers(0, 10_000))
@settings(max_examples=200)
def test_ratings_lie_around_their_star_with_one_decimal(star: int, seed: int) -> None:
    rating = rating_around(star, np.random.default_rng(seed))
    assert 1.0 <= rating <= 5.0
    assert round(rating, 1) == rating
    assert abs(rating - star) < 1.2


def test_ratings_round_to_their_star_almost_always() -> None:
    random = np.random.default_rng(0)
    drawn = [round(rating_around(3, random) - 0.05) for _ in range(500)]
    assert drawn.count(3) > 450


def test_a_task_keeps_its_share_whatever_the_number_of_its_families() -> None:
    kinds = sampler().kinds(0, "train")
    shares = dict.fromkeys(("sequential", "direct", "explanation"), 0.0)
    for kind in kinds:
        shares[kind.templates[0].task] += kind.weight
    assert shares == pytest.approx({"sequential": 1.0, "direct": 1.0, "explanation": 1.0})
    assert {kind.family for kind in kinds} == {"history", "candidates", "single", "explanation"}


def test_validation_asks_for_the_item_before_the_last() -> None:
    drawn = sampler(Prompts(templates=("A-3",)))
    kind = Kind(0, "history", (TEMPLATES["A-3"],), 1.0)
    for seed in range(NUM_USERS):
        sample = drawn.draw(kind, "val", np.random.default_rng(seed))
        items = DATASET.sequences.of(user_of(sample.prompt)).tolist()
        assert target_row(sample) == items[-2]
        assert list(sample.prompt.image_items) == items[:-2]


def test_a_dataset_without_what_the_templates_need_is_refused() -> None:
    bare = tiny_dataset()
    object.__setattr__(bare, "reviews", ())
    drawn = DomainSampler(bare, TOKENIZER, Prompts(tasks={"explanation": 1.0}), visual_tokens=2)
    with pytest.raises(TrainingError, match=r"tiny: no user with enough interactions .* in the split train"):
        all_kinds([drawn], "train")
