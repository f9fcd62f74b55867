"""Errors, export and precision of ONNX Runtime; test_engine.py and tests/parity compare it with torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from model.bundle.bundle import open_bundle
from model.decoding.trie_arena import TrieArena
from model.engine.choice import make_engine
from model.engine.collate import collate
from model.engine.names import EngineName
from model.engine.offline import rank
from model.engine.onnx.executor import OnnxExecutor
from model.engine.onnx.export import export_onnx
from model.engine.onnx.models import ProjectionWriter
from model.engine.plans import RankingPlan
from model.errors import BundleError, EngineError
from model.network.config import DomainLayout
from model.network.projection import Projection
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import load_runtime
from quiet_libraries.onnx_runtime import onnxruntime
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, tiny_bundle

PLAIN = replace(TINY_LAYOUT, bottleneck=0, cross_attention_adapter=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("onnx"), num_items=60)


@pytest.mark.parametrize("layout", [TINY_LAYOUT, PLAIN, replace(TINY_LAYOUT, cross_attention_adapter=False)])
@pytest.mark.parametrize("is_gated", [False, True])
def test_graphs_follow_the_backbone_and_the_adapters(tmp_path: Path, layout: DomainLayout, *, is_gated: bool) -> None:
    backbone = replace(
        TINY_BACKBONE,
        feed_forward_proj="gated-gelu" if is_gated else "relu",
        tie_word_embeddings=not is_gated,
        num_decoder_layers=3,
    )
    root = tiny_bundle(tmp_path, backbone=backbone, layouts={"toys": layout}, num_items=40)
    found, expected = ([*_rank(root, name)] for name in ("onnx", "torch"))
    assert [leaf for leaf, _ in found] == [leaf for leaf, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_rounded_weights_give_nearly_the_same_scores(bundle: Path) -> None:
    exact, rounded = dict(_rank(bundle, "torch")), dict(_rank(bundle, "onnx-int8"))
    both = exact.keys() & rounded.keys()
    assert len(both) >= 0.8 * len(exact)
    gaps = [abs(exact[leaf] - rounded[leaf]) for leaf in both]
    assert 1e-5 < max(gaps) < 0.5


def test_an_exported_encoder_needs_nothing_but_its_files(tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "exported"
    export_onnx(bundle, out)
    opened = open_bundle(bundle)
    network = opened.network()
    domain = ServedDomain.of(0, opened.domains["toys"], opened.tokenizer, opened.hash)
    batch = collate([_plan(domain)], network, torch.device("cpu"))
    session = onnxruntime.InferenceSession(str(out / "encoder.onnx"), providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}
    of_domain = load_file(out / "domains" / "toys.sequential.safetensors")
    inputs = {name: array for name, array in of_domain.items() if name in wanted}
    inputs["x"] = network.embed(batch).numpy()
    inputs["bias"] = network.encoder.positions(inputs["x"].shape[1]).numpy()
    inputs["is_token"] = np.ones(inputs["x"].shape[:2], np.int32)
    (key, *_) = session.run(["key.0"], inputs)
    assert np.abs(key - network.memorise(batch).keys[0].numpy()).max() < 1e-4
    with pytest.raises(BundleError, match="exists; choose a new folder"):
        export_onnx(bundle, out)


def test_an_unknown_engine_is_refused_with_those_that_are_known(bundle: Path) -> None:
    with pytest.raises(EngineError, match="engine 'tensorrt' is not known; choose one of auto, torch, onnx, onnx-int8"):
        load_runtime(bundle, engine="tensorrt")  # type: ignore[arg-type]  # as it comes from outside


def test_the_network_and_its_models_have_the_weights_in_memory_once(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = open_bundle(bundle).network()
    expected = {name: weight.clone() for name, weight in network.state_dict().items()}
    arrays: dict[str, NDArray[np.float32]] = {}
    share = ProjectionWriter.share_weights

    def noted(writer: ProjectionWriter) -> None:
        arrays.update(writer.weights)  # type: ignore[arg-type]  # all are float32
        share(writer)

    monkeypatch.setattr(ProjectionWriter, "share_weights", noted)
    OnnxExecutor(network, torch.device("cpu"))
    shared = [
        any(np.shares_memory(array, module.weight.detach().numpy()) for array in arrays.values())
        for module in network.modules()
        if isinstance(module, Projection) and module is not network.head
    ]
    assert len(shared) > 5
    assert all(shared)
    assert all(torch.equal(weight, expected[name]) for name, weight in network.state_dict().items())


@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_another_device_than_a_cpu_is_refused_before_anything_moves_to_it(bundle: Path, name: EngineName) -> None:
    network = open_bundle(bundle).network()
    with pytest.raises(EngineError, match=r"on a CPU here, not on meta; choose a CPU, or auto, torch or one of"):
        make_engine(name, network, TrieArena.of([]), torch.device("meta"))
    assert network.shared.device.type == "cpu"


def _rank(root: Path, engine: str) -> list[tuple[int, float]]:
    runtime = load_runtime(root, engine=engine)  # type: ignore[arg-type]  # one of them
    (ranking,) = rank(runtime.engine, [_plan(runtime.domains["toys"])])
    return list(zip(ranking.leaves.tolist(), ranking.scores.tolist(), strict=True))


def _plan(domain: ServedDomain) -> RankingPlan:
    query = OfflineSequential(history=("item-3", "item-5"), user_id="u1", k=20, num_beams=40)
    plan = plan_sequential(domain, query)
    assert isinstance(plan, RankingPlan)
    features = np.random.default_rng(3).standard_normal((2, domain.spec.layout.feature_dim)).astype(np.float32)
    return replace(plan, features=(features,))
