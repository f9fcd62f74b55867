"""RecTools' part of `benchmarks.sasrec`; runs in an environment with rectools[torch].

Reads each user's items before the target from IN (npz: `items` [L], `offsets` [U + 1]). When so many seconds of the
processor were used for training, prints a line of JSON, and writes ten items for each user, best first, -1 where there
are no more, to the file beside IN that the line names (npz: `kept` and `excluded` [U, 10], as to the history).

    python -m benchmarks.sasrec_worker IN SEED SECONDS...
"""

# U users

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer, seed_everything
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from rectools.models.nn.transformers.sasrec import SASRecDataPreparator
from torch.utils.data import DataLoader

from benchmarks.sasrec_batches import Batch, BatchesByLength, loss_of_targets, without_padding
from model.evaluation.interactions import interactions_of

K = 10
SIZE = {"n_factors": 64, "n_blocks": 2, "n_heads": 2, "session_max_len": 50, "dropout_rate": 0.2}
FITTING = {"loss": "softmax", "lr": 1e-3, "batch_size": 128}
NUM_VALIDATED = 5000

Rows = NDArray[np.int64]


class Preparator(SASRecDataPreparator):  # type: ignore[misc]  # the library is not annotated here
    """Trains on batches of histories of like length, without the places that all of them leave empty."""

    def get_dataloader_train(self) -> DataLoader[Any]:
        sequences = super().get_dataloader_train().dataset
        batches = BatchesByLength([len(session) for session in sequences.sessions], self.batch_size)
        return DataLoader(sequences, batch_sampler=batches, collate_fn=self._collate_fn_train)

    def _collate_fn_train(self, batch: list[Any]) -> Batch:
        return without_padding(super()._collate_fn_train(batch))


class Module(TransformerLightningModule):  # type: ignore[misc]  # the library is not annotated here
    """Computes the library's softmax loss for targets only."""

    def training_step(self, batch: Batch, _batch_idx: int) -> torch.Tensor:
        items = self.torch_model.item_model.get_all_embeddings()
        return loss_of_targets(self.torch_model.encode_sessions(batch, items), items, batch["y"])


def trainer() -> Trainer:
    return Trainer(
        enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False, devices=1
    )


def recommended(model: SASRecModel, dataset: Dataset, num_users: int, *, excludes: bool) -> Rows:
    """Ten items for each of the first users, best first, [num_users, 10]; -1 where there are no more."""
    found = model.recommend(
        users=np.arange(num_users), dataset=dataset, k=K, filter_viewed=excludes, on_unsupported_targets="ignore"
    )
    lists = np.full((num_users, K), -1)
    lists[found["user_id"], found["rank"] - 1] = found["item_id"]
    return lists


def ndcg(lists: Rows, targets: Rows) -> float:
    """NDCG@10 of one target for each list."""
    places = np.argwhere(lists == targets[:, None])[:, 1]
    return float(np.sum(1 / np.log2(places + 2)) / len(lists))


class Training:
    """Fits SASRec to all but the last item of each history, and remembers the weights that are best for the last."""

    def __init__(self, histories: Sequence[Rows]) -> None:
        known = [history[:-1] for history in histories]
        validated = np.random.default_rng(0).permutation(len(known))[:NUM_VALIDATED]
        self.model = SASRecModel(
            **SIZE,
            **FITTING,
            use_key_padding_mask=True,
            data_preparator_type=Preparator,
            lightning_module_type=Module,
            get_trainer_func=trainer,
        )
        self.used_s = 0.0  # of the processor, without validation
        self.curve: list[float] = []  # NDCG@10 after each epoch
        self._known = interactions_of(range(len(known)), known)
        self._validated = interactions_of(range(len(validated)), [known[user] for user in validated])
        self._targets = np.array([histories[user][-1] for user in validated])
        self._best: dict[str, torch.Tensor] = {}

    def fit(self, seconds: float) -> None:
        """Go on by whole epochs until so many seconds of the processor were used."""
        while self.used_s < seconds:
            began_at = time.process_time()
            self.model.fit_partial(self._known, min_epochs=1, max_epochs=1)
            self.used_s += time.process_time() - began_at
            lists = recommended(self.model, self._validated, len(self._targets), excludes=True)
            value = ndcg(lists, self._targets)
            if value > max(self.curve, default=-1.0):
                self._best = deepcopy(self.model.lightning_model.state_dict())
            self.curve.append(value)
            print(f"epoch {len(self.curve)}, {self.used_s:.0f} s: NDCG@10 {value:.4f}", file=sys.stderr, flush=True)

    def rankings(self, histories: Sequence[Rows]) -> dict[str, Rows]:
        """Ten items for each history by the best weights so far, with the history kept and excluded."""
        module, dataset = self.model.lightning_model, interactions_of(range(len(histories)), histories)
        last = deepcopy(module.state_dict())
        module.load_state_dict(self._best)
        kept, excluded = (recommended(self.model, dataset, len(histories), excludes=each) for each in (False, True))
        module.load_state_dict(last)
        return {"kept": kept, "excluded": excluded}

    def described(self) -> dict[str, Any]:
        return {
            "training_cpu_s": round(self.used_s, 1),
            "epochs": len(self.curve),
            "steps": self.model.fit_trainer.global_step,
            "best_epoch": int(np.argmax(self.curve)) + 1,
            "ndcg@10": self.curve,
            "parameters": sum(each.numel() for each in self.model.torch_model.parameters()),
            "versions": {name: importlib.metadata.version(name) for name in ("rectools", "torch")},
        }


def main(source: Path, seed: int, seconds: Sequence[float]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(seed, verbose=False)
    given = np.load(source)
    histories = np.split(given["items"], given["offsets"][1:-1])
    training = Training(histories)
    for number, budget in enumerate(seconds):
        training.fit(budget)
        target = source.with_name(f"found-{number}.npz")
        lists = training.rankings(histories)
        np.savez(target, kept=lists["kept"], excluded=lists["excluded"])
        print(json.dumps({"lists": str(target), **training.described()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [float(each) for each in sys.argv[3:]])
