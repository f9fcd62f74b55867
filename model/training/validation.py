"""Validation of a run while it trains: held-out questions to the engine that serves, with the weights of the moment."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from model.bundle.domain_files import DomainFiles, Foundation
from model.bundle.identifiers import tokenise_identifiers
from model.decoding.trie_arena import TrieArena
from model.devices import require_device
from model.engine.choice import make_engine
from model.evaluation.evaluation import evaluate
from model.evaluation.options import EvaluationOptions
from model.network.network import Vip5Network
from model.network.weights import domain_weights
from model.planning.domain import ServedDomain
from model.planning.runtime import Runtime
from model.prompts.tokenizer import TextTokenizer
from model.training.preparation import Preparation, TunedDomain

METRICS = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")
BEST = "ndcg@10"
"""The metric by which checkpoints are compared."""


@dataclass(frozen=True, eq=False)
class EngineValidation:
    """Asks some users of each domain for their validation item, by the default sequential template."""

    preparation: Preparation
    domains: dict[str, ServedDomain]
    files: dict[str, DomainFiles]
    arena: TrieArena
    options: EvaluationOptions

    @classmethod
    def of(cls, preparation: Preparation, device: str) -> EngineValidation:
        file = preparation.run.file
        tokenizer = TextTokenizer(preparation.tokenizer)
        files = {domain.spec.name: _files(domain, preparation.network, tokenizer) for domain in preparation.domains}
        domains = {
            name: ServedDomain.of(slot, each, tokenizer, bundle_hash="")
            for slot, (name, each) in enumerate(files.items())
        }
        arena = TrieArena.of([domain.trie for domain in domains.values()], require_device(device))
        options = EvaluationOptions(
            split="val",
            templates=(file.prompts.default_sequential,),
            num_users=file.record.validation_users,
            seed=file.seed,
            device=device,
        )
        return cls(preparation, domains, files, arena, options)

    def metrics(self, network: Vip5Network) -> dict[str, float]:
        """Means over the domains, by names such as `hr@5`."""
        runtime = self._runtime(network)
        found = [
            evaluate(runtime, domain.spec.name, domain.dataset, self.options).results[0].metrics
            for domain in self.preparation.domains
        ]
        return {name: sum(metrics[name].value for metrics in found) / len(found) for name in METRICS}

    def _runtime(self, network: Vip5Network) -> Runtime:
        """The engine with a copy of the weights, because engines rearrange what they get."""
        frozen = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        device = require_device(self.options.device)
        with torch.random.fork_rng():  # that validation may not change what is drawn in training
            engine = make_engine("torch" if device.type == "cpu" else "auto", frozen, self.arena, device)
        tokenizer = TextTokenizer(self.preparation.tokenizer)
        foundation = Foundation(self.preparation.config, "", tokenizer, "")
        return Runtime(engine, self.domains, "", foundation, self.files)


def _files(domain: TunedDomain, network: Vip5Network, tokenizer: TextTokenizer) -> DomainFiles:
    catalog = domain.dataset.catalog
    slot = [layout is domain.spec.layout for layout in network.layouts].index(True)
    return DomainFiles(
        spec=domain.spec,
        catalog=catalog,
        identifiers=tokenise_identifiers(catalog.indices, catalog.item_ids, tokenizer, domain.spec.name),
        users=domain.dataset.users,
        adapter=domain_weights(network, slot),
        features=domain.features,
    )
