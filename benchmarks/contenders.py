"""The contenders of benchmarks.cpu_engine, behind one interface."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from benchmarks.toys_bundle import DOMAIN, Purchases
from benchmarks.transformers_baseline import Vip5InTransformers, build_trie, generate, plain_t5
from model.bundle.bundle import Bundle
from model.engine.names import EngineName
from model.engine.offline import rank
from model.engine.plans import Plan, RankingPlan
from model.engine.protocol import Ranking
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import load_runtime

NUM_BEAMS = 20
K = 10
NUM_STEPS = 3
"""Steps in which nearly all of Toys' identifiers end; the few that are longer take the engines one more."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request for our engines, and the plan whose tokens the others get."""

    purchases: Purchases
    plan: Plan

    @property
    def num_tokens(self) -> int:
        return self.plan.longest


class Ours:
    """One of our engines, from item ids of the history to item ids of the answer."""

    def __init__(self, root: Path, engine: EngineName, num_threads: int) -> None:
        self._runtime = load_runtime(root, num_threads=num_threads, engine=engine)
        self._domain = self._runtime.domains[DOMAIN]
        self._config = self._runtime.foundation.config
        # Toys has embeddings of all items, in catalog order.
        self._features: NDArray[np.float32] = load_file(self._runtime.feature_files[DOMAIN])["features"]

    def request(self, purchases: Purchases) -> Request:
        plan = self._plan(purchases, k=K)
        return Request(purchases, self._with_features(plan))

    def answer(self, request: Request) -> list[str | None]:
        """The K best items outside of the history."""
        ranking = self._rank(self._plan(request.purchases, k=K))
        return [self._domain.catalog.item_ids[row] for row in self._domain.rows_of(ranking.leaves)]

    def floating_operations(self, request: Request) -> float:
        """Floating-point operations of the matrix products of one answer, with NUM_BEAMS beams over NUM_STEPS steps.

        Excludes adapters, attention and the visual mapper, which are a few per cent.
        """
        config = self._config
        block = 4 * config.d_model * config.inner_dim + 2 * config.d_model * config.d_ff
        per_token = config.num_layers * block + config.num_decoder_layers * 2 * config.d_model * config.inner_dim
        cross = 2 * config.d_model * config.inner_dim
        per_beam = config.num_decoder_layers * (block + cross) + config.d_model * config.vocab_size
        num_beams = 1 + NUM_BEAMS * (NUM_STEPS - 1)
        return 2.0 * (per_token * request.num_tokens + per_beam * num_beams)

    def best(self, request: Request) -> list[tuple[str | None, float]]:
        """The NUM_BEAMS best items and their scores."""
        ranking = self._rank(self._plan(request.purchases, k=NUM_BEAMS, exclude_history=False))
        rows = self._domain.rows_of(ranking.leaves)
        return [
            (self._domain.catalog.item_ids[row], float(score)) for row, score in zip(rows, ranking.scores, strict=True)
        ]

    def _plan(self, purchases: Purchases, *, k: int, exclude_history: bool = True) -> RankingPlan:
        query = OfflineSequential(
            history=purchases.history,
            user_id=purchases.user_index,
            exclude_history=exclude_history,
            k=k,
            num_beams=NUM_BEAMS,
        )
        plan = plan_sequential(self._domain, query)
        assert isinstance(plan, RankingPlan)
        return plan

    def _rank(self, plan: RankingPlan) -> Ranking:
        (ranking,) = rank(self._runtime.engine, [self._with_features(plan)])
        return ranking

    def _with_features(self, plan: RankingPlan) -> RankingPlan:
        return replace(plan, features=(self._features[list(plan.prompt.image_items)],))


class _Generating:
    """Base of the contenders that use transformers' `generate`."""

    def __init__(self, bundle: Bundle) -> None:
        catalog = bundle.domains[DOMAIN].catalog
        identifiers = bundle.tokenizer.identifiers(catalog.indices)
        self._trie = build_trie(identifiers)
        self._item_of = {tuple(ids): item_id for ids, item_id in zip(identifiers, catalog.item_ids, strict=True)}


class PlainT5(_Generating):
    """transformers' T5 and `generate`, on the prompt's token ids only."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._model = plain_t5(bundle, DOMAIN)

    @torch.inference_mode()
    def answer(self, request: Request) -> list[str | None]:
        """The K best items outside of the history; None for a sequence that is not an item."""
        prompt = {"input_ids": torch.from_numpy(request.plan.prompt.input_ids)[None]}
        found = generate(self._model, prompt, self._trie, NUM_BEAMS)
        items = [self._item_of.get(one.token_ids) for one in found]
        return [item for item in items if item is None or item not in request.purchases.history][:K]


class CTranslate2:
    """CTranslate2's int8 conversion of a plain T5 in its own process: unconstrained, without images.

    Gets the prompt's tokens and decodes NUM_STEPS steps with NUM_BEAMS beams.
    """

    def __init__(self, python: Path, bundle: Bundle, folder: Path, tokenizer: Path, num_threads: int) -> None:
        if not folder.exists():
            plain_t5(bundle, DOMAIN).save_pretrained(folder)
            shutil.copy(tokenizer, folder / "tokenizer.json")
            settings = {"tokenizer_class": "T5TokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
            (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<unk>"}))
        worker = Path(__file__).with_name("ctranslate2_worker.py")
        self._process = subprocess.Popen(  # noqa: S603  # the interpreter is the caller's choice
            [python, worker, folder, str(num_threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._read()  # wait until the worker is ready

    def seconds(self, request: Request) -> float:
        """Decoding time in the worker, without communication."""
        tokens = [self._tokenizer.id_to_token(int(token)) for token in request.plan.prompt.input_ids]
        assert self._process.stdin is not None
        print(json.dumps({"tokens": tokens, "steps": NUM_STEPS}), file=self._process.stdin, flush=True)
        answer = self._read()
        assert answer["longest"] == NUM_STEPS, "CTranslate2 must decode as many steps as the engines"
        return answer["seconds"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer


class Vip5Rebuilt(_Generating):
    """VIP5 on transformers' T5 and `generate`."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._vip5 = Vip5InTransformers(bundle, DOMAIN)

    @torch.inference_mode()
    def best(self, request: Request) -> list[tuple[str | None, float]]:
        """The NUM_BEAMS best items and their scores."""
        embedded = self._vip5.embed(request.plan)
        prompt = {"inputs_embeds": embedded, "attention_mask": torch.ones(embedded.shape[:2], dtype=torch.long)}
        found = generate(self._vip5.model, prompt, self._trie, NUM_BEAMS)
        return [(self._item_of.get(one.token_ids), one.score) for one in found]
