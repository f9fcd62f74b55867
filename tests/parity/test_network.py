"""The network against what the original one computed, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.engine.collate import collate
from model.engine.decoding_engine import DecodingEngine
from model.engine.plans import ScoringPlan
from model.network.attention import relative_buckets
from model.network.banks import AdapterBank, RMSNormBank, RowIndex
from model.network.loss import IGNORED, token_losses, vip5_loss
from model.network.network import EncoderBatch
from model.network.projection import Projection
from model.network.stacks import Branch
from tests.parity.golden import STATE_TOLERANCE, Case, Golden, Tensors, largest_difference


def test_encoder_states_logits_and_losses_equal_the_recorded_ones(golden: Golden) -> None:
    for case in golden.cases.values():
        batch, targets = golden.batch(case), case["target_ids"].long().unsqueeze(0)
        states, _ = golden.network.encode(batch)
        logits = golden.network(batch, targets)
        top = logits[0].gather(1, case["logits_top64_ids"].long())
        at_targets = logits[0].gather(1, targets[0].unsqueeze(1)).squeeze(1)
        assert largest_difference(states[0], case["enc_last_hidden"]) < STATE_TOLERANCE, case.name
        assert largest_difference(top, case["logits_top64_values"]) < STATE_TOLERANCE, case.name
        assert largest_difference(logits[0].logsumexp(-1), case["logits_logsumexp"]) < STATE_TOLERANCE, case.name
        assert largest_difference(at_targets, case["logits_at_targets"]) < STATE_TOLERANCE, case.name
        assert largest_difference(token_losses(logits, targets)[0], case["loss_per_token"]) < STATE_TOLERANCE, case.name
        assert float(vip5_loss(logits, targets)) == pytest.approx(case.facts["valid_step"]["loss"], abs=STATE_TOLERANCE)


def test_full_logits_equal_where_they_were_recorded(golden: Golden) -> None:
    names = golden.json("cases.json")["full_logits"]
    assert len(names) == 7
    for name in names:
        case = golden.cases[name]
        logits = golden.network(golden.batch(case), case["target_ids"].long().unsqueeze(0))
        assert largest_difference(logits[0], case["logits_full"]) < STATE_TOLERANCE, name


def test_every_recorded_layer_has_the_same_output(golden: Golden) -> None:
    recorded = golden.tensors("debug")
    names = golden.json("cases.json")["debug"]
    compared = 0
    for name in names:
        outputs = _layer_outputs(golden, golden.cases[name])
        expected = {key.split("/", 1)[1] for key in recorded.names if key.startswith(f"{name}/")}
        assert expected == set(outputs), name
        for key in expected:
            assert largest_difference(outputs[key], recorded[f"{name}/{key}"]) < STATE_TOLERANCE, (name, key)
            compared += 1
    assert compared == len(recorded.names)


def test_yes_and_no_have_the_recorded_log_probabilities(golden: Golden, engine: DecodingEngine) -> None:
    asked = [case for case in golden.cases.values() if "yes_no" in case.facts]
    assert len(asked) == 8
    for case in asked:
        answers = case.facts["yes_no"]
        targets = tuple(tuple(answers[answer]["token_ids"]) for answer in ("yes", "no"))
        ((((yes, no),),), _) = engine.score([ScoringPlan.of(case.plan(), targets)])
        assert yes == pytest.approx(answers["yes"]["sum"], abs=STATE_TOLERANCE), case.name
        assert no == pytest.approx(answers["no"]["sum"], abs=STATE_TOLERANCE), case.name


def test_padded_batches_have_the_recorded_losses(golden: Golden) -> None:
    recorded = golden.json("batches.json")
    assert len(recorded) == 6
    tensors = golden.tensors("batches")
    for name, facts in recorded.items():
        cases = [golden.cases[case] for case in facts["case_ids"]]
        targets = tensors[f"{name}/target_ids"].long()
        logits = golden.network(_padded_batch(golden, cases, tensors, name), targets.clamp(min=0))
        targets = targets.masked_fill(targets == 0, IGNORED)
        assert largest_difference(token_losses(logits, targets), tensors[f"{name}/loss"]) < STATE_TOLERANCE, name
        loss = float(vip5_loss(logits, targets))
        assert loss == pytest.approx(facts["valid_step"]["loss"], abs=STATE_TOLERANCE), name


def test_parts_equal_the_recorded_unit_values(golden: Golden) -> None:
    units = json.loads((golden.common / "units.json").read_text())
    _check_norm(units["layernorm"])
    _check_adapter(units["adapter"])
    gelu = torch.nn.functional.gelu(torch.tensor(units["gelu_new"]["x"], dtype=torch.float32), approximate="tanh")
    assert largest_difference(gelu, torch.tensor(units["gelu_new"]["y"])) < 1e-6
    distances = torch.tensor(units["buckets"]["relative_position"])
    for direction in ("bidirectional", "causal"):
        is_bidirectional = direction == "bidirectional"
        buckets = relative_buckets(distances, num_buckets=32, max_distance=128, is_bidirectional=is_bidirectional)
        assert buckets.tolist() == units["buckets"][direction]


def _check_norm(unit: dict[str, Any]) -> None:
    norm = RMSNormBank(1, len(unit["weight"]), unit["eps"])
    norm.weight.copy_(torch.tensor([unit["weight"]]))
    expected = torch.tensor(unit["y"])
    normed = norm(torch.tensor(unit["x"]).unsqueeze(0), 0)[0]
    assert largest_difference(normed, expected) < 1e-5


def _check_adapter(unit: dict[str, Any]) -> None:
    for task, expected in unit["y"].items():
        weights = {
            key.split(".", 2)[2]: torch.tensor(value)
            for key, value in unit["state_dict"].items()
            if key.startswith(f"adapters.{task}.")
        }
        bottleneck, width = weights["down_sampler.weight"].shape
        adapter = AdapterBank(1, width, bottleneck)
        adapter.down_weight[0].copy_(weights["down_sampler.weight"])
        adapter.down_bias[0].copy_(weights["down_sampler.bias"])
        adapter.up_weight[0].copy_(weights["up_sampler.weight"])
        adapter.up_bias[0].copy_(weights["up_sampler.bias"])
        x = torch.tensor(unit["x"])
        assert largest_difference(adapter(x.reshape(1, -1, width), 0).view_as(x), torch.tensor(expected)) < 1e-5


def _padded_batch(golden: Golden, cases: list[Case], tensors: Tensors, name: str) -> EncoderBatch:
    batch = collate([case.plan() for case in cases], golden.network, torch.device("cpu"))
    for part in ("input_ids", "whole_word_ids", "category_ids"):
        assert torch.equal(getattr(batch, part), tensors[f"{name}/{part}"].long()), (name, part)
    return batch


def _layer_outputs(golden: Golden, case: Case) -> dict[str, Tensor]:
    """Outputs under the names of the recording, caught by hooks on the way through the network."""
    network, outputs = golden.network, {}
    batch, targets = golden.batch(case), case["target_ids"].long().unsqueeze(0)

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(_module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> None:
            outputs[name] = output[0]

        return hook

    handles, restored = [], []
    for stack, module in (("enc", network.encoder), ("dec", network.decoder)):
        for number, block in enumerate(module.layers):
            handles.append(block.register_forward_hook(keep(f"{stack}_block{number}")))
            branches = [child for child in block.children() if isinstance(child, Branch)]
            for layer, branch in enumerate(branches):
                restored.append(branch)
                _watch(branch, f"{stack}_block{number}_layer{layer}", outputs)
    try:
        network(batch, targets)
    finally:
        for handle in handles:
            handle.remove()
        for branch in restored:
            del branch.after
    outputs["enc_input"] = network.embed(batch)[0]
    assert network.visual is not None
    outputs["vis_embed"] = network.visual(batch.features, 0)[0].flatten(0, 1)
    outputs["enc_self_position_bias"] = network.encoder.positions(40)[0]
    outputs["dec_self_position_bias"] = network.decoder.positions(20)[0]
    return outputs


def _watch(branch: Branch, name: str, outputs: dict[str, Tensor]) -> None:
    after = branch.after

    def watched(x: Tensor, hidden: Tensor, projection: Projection, rows: RowIndex) -> Tensor:
        outputs[name] = after(x, hidden, projection, rows)[0]
        return outputs[name].unsqueeze(0)

    object.__setattr__(branch, "after", watched)
