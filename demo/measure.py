"""Measures the demonstration on the customers that were held out, through the engine that serves it.

    python -m demo.measure --bundle demo/bundle --readme demo/README.md

Prints a table, and with --readme puts it between the marks in that file. Three ways of asking are compared: with
pictures, with the same model while all image embeddings are missing, and with adapters tuned without pictures.
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
import torch
from numpy.typing import NDArray

from demo.designs import ASSORTMENTS
from demo.make import Places
from demo.progress import progress_bar
from model.engine.runtime import Runtime, load_runtime
from model.errors import Vip5Error
from model.training.data.dataset import Dataset, Review
from model.training.evaluation.answers import TextAnswer, read_answers
from model.training.evaluation.evaluation import evaluate
from model.training.evaluation.held_out import HeldOut
from model.training.evaluation.metrics import Estimate, mean_estimates
from model.training.evaluation.options import EvaluationOptions
from model.training.evaluation.summary import baseline_results

TEMPLATE = "A-3"
EXPLANATION_TEMPLATE = "C-12"
BASELINES = ("random", "popularity", "co-occurrence")
_MARKS = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)


@dataclass(frozen=True)
class Figures:
    """One way of recommending, in one domain. Shares are of explanations that name the item's true trait.

    `share_true_new` speaks of the items of a season that nothing was trained on, of which only the picture tells.
    """

    domain: str
    name: str
    hit_rate: Estimate  # at 5
    ndcg: Estimate  # at 5
    share_true: Estimate | None = None
    share_true_new: Estimate | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.measure", description="Measure the demonstration.")
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--num-users", type=int, help="so many customers, drawn at random (default: all)")
    parser.add_argument("--readme", type=Path, help="a file to put the table into")
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
        figures += [*inquiry.baselines(), text, missing, inquiry.figures("prompts with pictures")]
    return figures


def table(figures: Sequence[Figures]) -> str:
    """Markdown."""
    head = ("", "", "HR@5", "NDCG@5", "true trait named", "… of new items")
    rows = [head, ("---",) * len(head)]
    for one in figures:
        cells = (one.hit_rate, one.ndcg, one.share_true, one.share_true_new)
        rows.append((one.domain, one.name, *("" if cell is None else _shown(cell) for cell in cells)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@dataclass(frozen=True, eq=False)
class Inquiry:
    """Asks one domain of a bundle for the held-out customers, or a sample of them."""

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
            report = evaluate(self.runtime, self.domain, self.dataset, options, journal=journal, progress=progress)
            texts = [answer for answer in read_answers(journal) if isinstance(answer, TextAnswer)]
        metrics = report.of("sequential", TEMPLATE).metrics
        return Figures(self.domain, name, metrics["hr@5"], metrics["ndcg@5"], *self._shares_true(texts, options))

    def baselines(self) -> Iterator[Figures]:
        """Fitted on what the held-out customers bought before: they may know the new items, the model does not."""
        held_out = self._held_out(EvaluationOptions(num_users=self.num_users, exclude_history=True))
        for name in BASELINES:
            (result,) = baseline_results(held_out, name, ("sequential",))
            yield Figures(self.domain, name, result.metrics["hr@5"], result.metrics["ndcg@5"])

    def _held_out(self, options: EvaluationOptions) -> HeldOut:
        return HeldOut.of(self.dataset, self.runtime.domains[self.domain], options)

    def _shares_true(self, texts: Sequence[TextAnswer], options: EvaluationOptions) -> tuple[Estimate, Estimate]:
        """Share of the texts that name the item's true colour, pattern or style, whichever was asked for."""
        reviews = self._held_out(options).reviews
        asked = [reviews[text.review] for text in texts]
        is_true = np.array([self._names_trait(review, text.text) for review, text in zip(asked, texts, strict=True)])
        users = np.array([review.user for review in asked])
        ranges = self.dataset.catalog.table.column("range").to_pylist()
        is_new = np.array([ranges[review.item] != "regular" for review in asked])
        return _share(is_true, users), _share(is_true[is_new], users[is_new])

    def _names_trait(self, review: Review, text: str) -> bool:
        assert review.feature is not None, "the demonstration's reviews are all about a trait"
        return self.dataset.catalog.attributes(review.item)[review.feature] in re.findall(r"\w+", text)


def _share(is_true: NDArray[np.bool_], users: NDArray[np.int64]) -> Estimate:
    return mean_estimates({"share": is_true.astype(np.float64)}, users, seed=0)["share"]


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
