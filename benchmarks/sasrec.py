"""How good does a transformer that only recommends become in the time that a bundle's training had?

Question  Next items of all users of a dataset: which hit rates does SASRec reach after some minutes of one core?
Method    SASRec (Kang and McAuley, arXiv 1808.09781) by RecTools: 64 wide, 2 blocks, 2 heads, last 50 items, dropout
          0.2, Adam with a learning rate of 0.001, 128 users a batch, softmax loss over the whole catalog. It is fitted
          to all but the last two items of each user, on one thread, until the minutes of the processor are used, and
          the epoch with the best NDCG@10 for 5,000 users' last but one item is kept. Then it ranks all items but those
          that no user had in training for all users' last item. Baselines that count answer the same questions; ranks
          and intervals are computed as by `vip5 evaluate --both-histories`. RecTools needs an environment of its own:
          `python -m venv V && V/bin/pip install 'rectools[torch]'`, then --rectools V/bin/python.
Output    The validation's NDCG@10 after each epoch, and lines of a table of HR and NDCG with half the 95 % intervals,
          SASRec's as soon as each number of minutes was used; the last line is JSON.

    python -m benchmarks.sasrec --data DATASET --rectools PYTHON [--minutes 5 10 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.commit import commit
from model.datasets.dataset import Dataset
from model.evaluation.baselines import catalog_lists, fit_baseline, ranks_in
from model.evaluation.held_out import HeldOut, Rows
from model.evaluation.metrics import Estimate, mean_estimates, ranking_statistics
from model.evaluation.options import EvaluationOptions

ROOT = Path(__file__).resolve().parent.parent
COUNTED = ("popularity", "co-occurrence", "decayed-co-occurrence")
SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")
HISTORIES = {"kept": False, "excluded": True}

Estimates = Mapping[str, Estimate]


def held_out_with(dataset: Dataset, *, excludes_history: bool) -> HeldOut:
    """The test questions about all users, with every item active."""
    options = EvaluationOptions(exclude_history=excludes_history)
    return HeldOut(dataset, options, np.ones(len(dataset.catalog), dtype=np.bool_))


def write_histories(path: Path, held_out: HeldOut) -> None:
    """The items before the target of each user who is asked about, `items` [L] by `offsets` [users + 1]."""
    histories = [held_out.history(user) for user in held_out.users.tolist()]
    offsets = np.cumsum([0, *(len(history) for history in histories)])
    np.savez(path, items=np.concatenate(histories), offsets=offsets)


def estimates_of(lists: Sequence[Rows], held_out: HeldOut) -> Estimates:
    """The metrics of a list of items for each user who is asked about, best first."""
    users = held_out.asked_users(among_candidates=False)
    ranks = ranks_in(lists, [held_out.target(user) for user in users.tolist()])
    return mean_estimates(ranking_statistics(ranks), users, held_out.options.seed)


def lists_of(found: NDArray[np.int64], held_out: HeldOut) -> list[Rows]:
    """SASRec's rows [users, 10] of the users who are asked about.

    Raises ValueError if a list has an item twice, or one of the history that is to be excluded.
    """
    asked = np.isin(held_out.users, held_out.asked_users(among_candidates=False))
    lists = []
    for user, row in zip(held_out.users[asked].tolist(), found[asked], strict=True):
        items = row[row >= 0]
        barred = held_out.history(user) if held_out.options.exclude_history else items[:0]
        if len(np.unique(items)) < len(items) or np.isin(items, barred).any():
            raise ValueError(f"user {user} got {items.tolist()}: an item is there twice, or in the history")
        lists.append(items)
    return lists


def trainings(python: str, given: Path, seed: int, minutes: Sequence[float]) -> Iterator[dict[str, Any]]:
    """What SASRec's process says of itself after so many minutes, and where its lists are."""
    seconds = [str(each * 60) for each in sorted(minutes)]
    command = [python, "-m", "benchmarks.sasrec_worker", str(given), str(seed), *seconds]
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    with subprocess.Popen(  # noqa: S603 - the caller's interpreter
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            for line in process.stdout or ():
                if line.startswith("{"):
                    yield json.loads(line)
        except GeneratorExit:
            process.kill()  # otherwise it would train on, and be waited for
            raise
    if process.returncode:
        raise SystemExit(f"SASRec's process ended with {process.returncode}; what it said is above")


def counted_by(held_out: HeldOut) -> dict[str, Estimates]:
    """The metrics of the baselines that count."""
    return {name: estimates_of(catalog_lists(fit_baseline(name, held_out), held_out), held_out) for name in COUNTED}


def show(results: Mapping[str, Estimates]) -> None:
    for name, metrics in results.items():
        cells = (f"{metrics[each].value:.4f} ± {metrics[each].margin:.4f}" for each in SHOWN)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def values_of(results: Mapping[str, Estimates]) -> dict[str, dict[str, float]]:
    return {name: {metric: each.value for metric, each in metrics.items()} for name, metrics in results.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a dataset that vip5 data prepare made")
    parser.add_argument("--rectools", required=True, help="Python interpreter of an environment with rectools[torch]")
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[20.0], help="of the processor, for training; several in one run"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    of_commit, dataset = commit(), Dataset.read(options.data)
    asked = {name: held_out_with(dataset, excludes_history=excludes) for name, excludes in HISTORIES.items()}
    print(f"| | {' | '.join(metric.upper() for metric in SHOWN)} |\n|---|---|---|---|---|")
    results: dict[str, Estimates] = {}
    for name, held_out in asked.items():
        results |= {f"history {name}: {who}": metrics for who, metrics in counted_by(held_out).items()}
    show(results)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.npz"
        write_histories(given, asked["kept"])
        for done in trainings(options.rectools, given, options.seed, options.minutes):
            found = np.load(done.pop("lists"))
            measured = {
                f"history {name}: sasrec, {done['epochs']} epochs": estimates_of(
                    lists_of(found[name], held_out), held_out
                )
                for name, held_out in asked.items()
            }
            show(measured)
            runs.append({**done, "values": values_of(measured)})
            print(json.dumps({"commit": of_commit, "data": dataset.provenance.name, "runs": runs}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
