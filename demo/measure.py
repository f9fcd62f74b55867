"""Measures the demonstration on held-out customers, through the engine that serves it.

    python -m demo.measure --bundle demo/bundle --readme demo/README.md

Prints two tables, of recommendations and of explanations; --readme also writes them between the marks in that file.
Three variants are compared: with pictures, the same model while all image embeddings are missing, and another model
that was trained without pictures.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from demo.datasets import Shop, make_dataset
from demo.designs import ASSORTMENTS, COLOURS, PATTERNS, STYLES, Assortment
from demo.make import SEED, Customers, Places, Recipe
from demo.progress import progress_bar
from demo.reviews import TOPICS, mood_in, mood_of
from model.bundle.users import Users
from model.datasets.dataset import Dataset, Sequences
from model.errors import Vip5Error
from model.evaluation.answers import RankedAnswer, TextAnswer, read_answers
from model.evaluation.baselines import Baseline, catalog_ranks, fit_baseline
from model.evaluation.evaluation import evaluate
from model.evaluation.held_out import HeldOut
from model.evaluation.metrics import Estimate, Floats, mean_estimates, ranking_statistics
from model.evaluation.options import EvaluationOptions
from model.planning.runtime import Runtime, load_runtime

TEMPLATE = "A-3"
EXPLANATION_TEMPLATE = "C-12"
LOOK_WORDS = {*COLOURS, *PATTERNS, *STYLES}
BASELINES = ("random", "popularity", "co-occurrence")
_MARKS = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)


@dataclass(frozen=True)
class Explained:
    """Shares of explanations.

    Those that name a colour, pattern or style, and only ones that the item has (`true`); the same for summer's items,
    which no model was trained on (`true_new`); those that name the very trait that was asked for (`asked`), and those
    in a tone that fits the rating (`in_tone`).
    """

    true: Estimate
    true_new: Estimate
    asked: Estimate
    in_tone: Estimate


@dataclass(frozen=True)
class Figures:
    """Figures of one variant or baseline, in one domain.

    `new` and `regular` are the hit rates where the next purchase is one of summer's items, or one of the regular range.
    """

    domain: str
    name: str
    hit_rate: Estimate  # at 5, as are the others
    new: Estimate
    regular: Estimate
    ndcg: Estimate
    explained: Explained | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.measure", description="Measure the demonstration.")
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--num-users", type=int, help="number of customers, drawn at random (default: all)")
    parser.add_argument("--readme", type=Path, help="file to write the table into")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        text = table(measure(Places(options.bundle), options.num_users))
    except Vip5Error as error:
        print(error, file=sys.stderr)
        return 1
    print(text)
    if options.readme is not None:
        before = options.readme.read_text(encoding="utf-8")
        options.readme.write_text(_MARKS.sub(lambda match: f"{match[1]}{text}\n{match[2]}", before), encoding="utf-8")
    return 0


def measure(places: Places, num_users: int | None = None) -> list[Figures]:
    """All figures, domain by domain."""
    multimodal, text_only = load_runtime(places.bundle), load_runtime(places.text_bundle)
    figures: list[Figures] = []
    for assortment in ASSORTMENTS:
        name = assortment.domain
        held_out = Dataset.read(places.held_out / name)
        text = Inquiry(text_only, name, held_out, num_users).figures("prompts without pictures")
        inquiry = Inquiry(multimodal, name, held_out, num_users)
        missing = inquiry.figures("prompts with pictures, all missing", with_images=False)
        figures += [*inquiry.baselines(_tuned_on(assortment)), text, missing, inquiry.figures("prompts with pictures")]
    return figures


def table(figures: Sequence[Figures]) -> str:
    """Markdown: a table of recommendations, and one of explanations."""
    recommended: list[tuple[str, ...]] = [("", "", "HR@5", "… new items", "… regular items", "NDCG@5")]
    explained: list[tuple[str, ...]] = [("", "", "true to the item", "… if new", "as asked", "in tone")]
    for one in figures:
        cells = (one.hit_rate, one.new, one.regular, one.ndcg)
        recommended.append((one.domain, one.name, *map(_shown, cells)))
        if one.explained is not None:
            texts = (one.explained.true, one.explained.true_new, one.explained.asked, one.explained.in_tone)
            explained.append((one.domain, one.name, *map(_shown, texts)))
    return "\n\n".join(_markdown(rows) for rows in (recommended, explained))


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rest))


@dataclass(frozen=True, eq=False)
class Inquiry:
    """Questions to one domain of a bundle about the held-out customers, or a sample of them."""

    runtime: Runtime
    domain: str
    dataset: Dataset
    num_users: int | None

    def figures(self, name: str, *, with_images: bool = True) -> Figures:
        options = EvaluationOptions(
            templates=(TEMPLATE, EXPLANATION_TEMPLATE),
            num_users=self.num_users,
            exclude_history=True,
            with_images=with_images,
            max_new_tokens=20,
        )
        with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
            journal = Path(folder) / "answers.jsonl"
            evaluate(self.runtime, self.domain, self.dataset, options, journal=journal, progress=progress)
            answers = list(read_answers(journal))
        texts = [answer for answer in answers if isinstance(answer, TextAnswer)]
        ranked = {answer.user: answer for answer in answers if isinstance(answer, RankedAnswer)}
        held_out = self._held_out(options)
        ranks = [self._rank(ranked[user].item_ids, held_out.target(user)) for user in self._asked(held_out).tolist()]
        return self._ranked(name, np.array(ranks), held_out, self._explained(texts, options))

    def baselines(self, known: Dataset) -> Iterator[Figures]:
        """Fitted on the customers that the adapters were tuned on, and on the earlier purchases of held-out ones."""
        held_out = self._held_out(EvaluationOptions(num_users=self.num_users, exclude_history=True))
        together = HeldOut.of(joined(known, self.dataset), self.runtime.domains[self.domain], held_out.options)
        for name in BASELINES:
            fitted = Shifted(fit_baseline(name, together), len(known.users))
            yield self._ranked(name, catalog_ranks(fitted, held_out), held_out)

    def _ranked(
        self, name: str, ranks: NDArray[np.int64], held_out: HeldOut, explained: Explained | None = None
    ) -> Figures:
        """Figures from the rank of each asked customer's next purchase, 0 if it was not found."""
        columns, users = ranking_statistics(ranks), self._asked(held_out)
        is_new = np.array([self._is_new(held_out.target(user)) for user in users.tolist()])
        hits = columns["hr@5"]
        return Figures(
            domain=self.domain,
            name=name,
            hit_rate=_share(hits, users),
            new=_share(hits[is_new], users[is_new]),
            regular=_share(hits[~is_new], users[~is_new]),
            ndcg=_share(columns["ndcg@5"], users),
            explained=explained,
        )

    def _rank(self, item_ids: Sequence[str], target: int) -> int:
        target_id = self.dataset.catalog.item_ids[target]
        return item_ids.index(target_id) + 1 if target_id in item_ids else 0

    def _is_new(self, item: int) -> bool:
        return bool(self.dataset.catalog.attributes(item)["range"] == "summer")

    @staticmethod
    def _asked(held_out: HeldOut) -> NDArray[np.int64]:
        return held_out.asked_users(among_candidates=False)

    def _held_out(self, options: EvaluationOptions) -> HeldOut:
        return HeldOut.of(self.dataset, self.runtime.domains[self.domain], options)

    def _explained(self, texts: Sequence[TextAnswer], options: EvaluationOptions) -> Explained:
        reviews = self._held_out(options).reviews
        asked = [reviews[text.review] for text in texts]
        users = np.array([review.user for review in asked])
        attributes = [self.dataset.catalog.attributes(review.item) for review in asked]
        named = [LOOK_WORDS & set(re.findall(r"\w+", text.text)) for text in texts]
        is_true = np.array(
            [
                bool(words) and words <= {item[topic] for topic in TOPICS}
                for words, item in zip(named, attributes, strict=True)
            ]
        )
        is_asked = np.array(
            [item[review.feature or ""] in words for words, item, review in zip(named, attributes, asked, strict=True)]
        )
        in_tone = np.array(
            [
                mood_in(text.text) == mood_of(int(review.star_rating or 0))
                for text, review in zip(texts, asked, strict=True)
            ]
        )
        is_new = np.array([self._is_new(review.item) for review in asked])
        return Explained(
            true=_share(is_true, users),
            true_new=_share(is_true[is_new], users[is_new]),
            asked=_share(is_asked, users),
            in_tone=_share(in_tone, users),
        )


def _tuned_on(assortment: Assortment) -> Dataset:
    """Simulated again, because the data that the adapters were tuned on is not shipped."""
    shop = Shop.opened(assortment, SEED)
    return make_dataset(shop, "spring", Customers.of(shop, Recipe()).of_adapters, seed=SEED)


@dataclass(frozen=True)
class Shifted:
    """A baseline that was fitted on additional users, who come before those that are asked about."""

    fitted: Baseline
    num_before: int

    def scores(self, user: int, /) -> Floats:
        return self.fitted.scores(self.num_before + user)


def joined(first: Dataset, second: Dataset) -> Dataset:
    """The purchases of the users of two datasets with the same catalog; `first`'s users come first."""
    start = first.sequences.offsets[-1]
    return Dataset(
        provenance=first.provenance,
        catalog=first.catalog,
        users=Users(pa.concat_tables([first.users.table, second.users.table])),
        sequences=Sequences(
            items=np.concatenate([first.sequences.items, second.sequences.items]),
            offsets=np.concatenate([first.sequences.offsets[:-1], start + second.sequences.offsets]),
        ),
    )


def _share(values: NDArray[np.bool_] | Floats, users: NDArray[np.int64]) -> Estimate:
    """The mean over questions."""
    return mean_estimates({"share": values.astype(np.float64)}, users, seed=0)["share"]


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
