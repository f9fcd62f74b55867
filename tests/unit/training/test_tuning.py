"""What tuning changes, what it leaves alone, and what becomes of a run that is killed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.bundle.bundle import open_bundle
from model.bundle.catalog import TRAINING_INTERACTIONS
from model.engine.plans import RankingPlan
from model.errors import BackboneMismatchError, TrainingError, Vip5Error
from model.network.weights import backbone_weights
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import load_runtime
from model.training.config import read_run
from model.training.preparation import prepare
from model.training.tuned_model import TunedModel
from model.training.tuning import tune
from tests.tiny import tiny_tokenizer
from tests.unit.training.tiny_data import ADAPTERS, FEATURE_DIM, FROM_SCRATCH, tiny_dataset, write_run

BACKBONE = "backbone/model.safetensors"


def weights(root: Path, domain: str = "toys") -> dict[str, torch.Tensor]:
    return load_file(root / "domains" / domain / "adapter.safetensors")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a bundle that was trained from scratch."""
    folder = tmp_path_factory.mktemp("scratch")
    tune(read_run(write_run(folder, FROM_SCRATCH, name="scratch")))
    return folder


def adapters_run(scratch: Path, folder: Path, text: str = ADAPTERS) -> Path:
    """A run file in `folder` that starts from the bundle of `scratch` and writes another one."""
    given = text.replace(
        'out = "bundle"', f'out = "{folder}/tuned"\nstart = "{scratch}/bundle"\nwork = "{folder}/work"'
    )
    return write_run(scratch, given, name=folder.name)


def test_a_backbone_from_scratch_makes_a_bundle_that_serves(scratch: Path) -> None:
    runtime = load_runtime(scratch / "bundle")
    domain = runtime.domains["toys"]
    plan = plan_sequential(domain, OfflineSequential(history=("item-1", "item-2"), user_id="u3"))
    assert isinstance(plan, RankingPlan)
    assert domain.spec.trained


def test_the_catalog_of_a_trained_domain_counts_what_training_saw(scratch: Path) -> None:
    dataset = tiny_dataset()
    seen = [dataset.sequences.of(user)[:-2] for user in range(len(dataset.users))]
    expected = np.bincount(np.concatenate(seen), minlength=len(dataset.catalog))
    catalog = open_bundle(scratch / "bundle").domains["toys"].catalog
    assert catalog.table.column(TRAINING_INTERACTIONS).to_pylist() == expected.tolist()


def test_data_that_is_not_used_is_named(tmp_path: Path) -> None:
    dataset = tiny_dataset(num_items=9)
    dataset.write(tmp_path / "data")
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    for item_id in (*dataset.catalog.item_ids[2:], "other"):
        path = tmp_path / "pictures" / f"{item_id}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.ones(FEATURE_DIM, np.float32))
    text = FROM_SCRATCH.replace("tokens = 2", 'tokens = 2\nfeatures = { toys = "pictures" }')
    (domain,) = prepare(read_run(write_run(tmp_path, text))).domains
    num_full = sum(len(dataset.sequences.of(user)) == 9 for user in range(len(dataset.users)))
    assert domain.notices == (
        "toys: 7 of 9 items have an embedding, 2 do not: 'item-1', 'item-2'; 1 file matches no item: 'other.npy'",
        f"toys: {num_full} users had every item, and are not asked about candidates or one item",
    )


def test_a_training_that_diverges_writes_no_bundle(tmp_path: Path) -> None:
    tiny_dataset(num_items=9).write(tmp_path / "data")
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    path = write_run(tmp_path, FROM_SCRATCH.replace("steps = 6", "steps = 6\nlearning_rate = 1e38"))
    with pytest.raises(TrainingError, match=r"the training diverged: .* train with a smaller optimiser\.learning_rate"):
        tune(read_run(path))
    assert not (tmp_path / "bundle").exists()


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    longer = FROM_SCRATCH.replace("steps = 6", "steps = 40\nlearning_rate = 1e-2").replace(
        "log_every = 1", "log_every = 10"
    )
    losses = tune(read_run(write_run(tmp_path, longer))).measures.train_loss
    assert losses[-1][1] < 0.8 * losses[0][1]


def test_the_optimiser_forgets_old_gradients_as_fast_as_it_is_told(tmp_path: Path) -> None:
    losses = []
    for number, optimiser in enumerate(("steps = 6", "steps = 6\nbeta2 = 0.999", "steps = 6\nbeta2 = 0.5")):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = FROM_SCRATCH.replace("steps = 6", optimiser)
        losses.append(tune(read_run(write_run(folder, text))).measures.train_loss)
    default, slow, fast = losses
    assert default == slow
    assert fast[0] == slow[0]
    assert fast != slow


def test_a_run_that_ends_before_its_schedule_is_the_beginning_of_the_longer_one(tmp_path: Path) -> None:
    losses = []
    for number, steps in enumerate(("steps = 6", "steps = 4\nschedule_steps = 6", "steps = 4")):
        folder = tmp_path / str(number)
        folder.mkdir()
        losses.append(tune(read_run(write_run(folder, FROM_SCRATCH.replace("steps = 6", steps)))).measures.train_loss)
    longer, beginning, shorter = losses
    assert beginning == longer[:4]
    assert shorter != beginning


def test_adapter_tuning_leaves_every_backbone_tensor_bit_identical(scratch: Path, tmp_path: Path) -> None:
    result = tune(read_run(adapters_run(scratch, tmp_path)))
    before, after = load_file(scratch / "bundle" / BACKBONE), load_file(tmp_path / "tuned" / BACKBONE)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (scratch / "bundle" / BACKBONE).read_bytes() == (tmp_path / "tuned" / BACKBONE).read_bytes()
    assert 0 < result.counts.share < 0.5


def test_the_network_itself_keeps_its_backbone_while_adapters_are_tuned(scratch: Path, tmp_path: Path) -> None:
    preparation = prepare(read_run(adapters_run(scratch, tmp_path)))
    model = TunedModel(preparation.network, preparation.run.file)
    before = backbone_weights(preparation.network)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {"network.shared", "network.whole_word", "network.category"} <= frozen
    assert not any("adapter" in name or "norm" in name or "visual" in name for name in frozen)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    after = backbone_weights(preparation.network)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapters_norms_and_visual_mapper_change_and_tables_do_not(scratch: Path, tmp_path: Path) -> None:
    tune(read_run(adapters_run(scratch, tmp_path)))
    before, after = weights(scratch / "bundle"), weights(tmp_path / "tuned")
    tables = {"encoder.whole_word_embeddings.weight", "encoder.category_embeddings.weight"}
    assert all(torch.equal(before[name], after[name]) for name in tables)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "encoder.final_layer_norm.weight" in changed
    assert "encoder.visual_embedding.feat_embedding.0.model.0.weight" in changed
    up = [tensor for name, tensor in after.items() if name.endswith("up_sampler.weight")]
    assert up
    assert all(tensor.abs().max() > 0 for tensor in up)


def test_the_tuned_domain_loads_on_the_served_backbone_and_on_no_other(scratch: Path, tmp_path: Path) -> None:
    run = read_run(write_run(scratch, ADAPTERS.replace('name = "toys"', 'name = "more"'), name="more"))
    tune(run)
    assert set(open_bundle(scratch / "bundle").domains) == {"toys", "more"}
    assert open_bundle(scratch / "bundle").network().config.d_model == 16

    other = tmp_path / "other"
    other.mkdir()
    tune(read_run(write_run(other, FROM_SCRATCH.replace('tune = "from', 'seed = 5\ntune = "from'))))
    domain = scratch / "bundle" / "domains" / "more" / "domain.json"
    spec = json.loads(domain.read_text(encoding="utf-8"))
    assert spec["backbone_sha256"] != open_bundle(other / "bundle").backbone.sha256
    with pytest.raises(BackboneMismatchError):
        _graft(scratch / "bundle", other / "bundle")


def _graft(source: Path, target: Path) -> None:
    """Put a domain into a bundle with another backbone, by hand."""
    import shutil

    from model.bundle.manifest import write_manifest

    shutil.copytree(source / "domains" / "more", target / "domains" / "more")
    write_manifest(target)
    open_bundle(target)


def test_a_run_that_is_killed_resumes_to_the_same_result(scratch: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    tune(read_run(adapters_run(scratch, whole)))

    def kill(what: str, done: int, total: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    run = read_run(adapters_run(scratch, broken))
    with pytest.raises(KeyboardInterrupt):
        tune(run, progress=kill)
    assert (broken / "work" / "checkpoint-4").is_dir()
    assert not (broken / "tuned").exists()

    steps: list[int] = []
    tune(run, progress=lambda what, done, total: steps.append(done))
    assert min(steps[1:]) == 5  # it went on and did not begin anew
    first, second = weights(whole / "tuned"), weights(broken / "tuned")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_unfinished_run_with_other_settings_is_not_gone_on_with(scratch: Path, tmp_path: Path) -> None:
    def kill(what: str, done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(read_run(adapters_run(scratch, tmp_path)), progress=kill)
    changed = read_run(adapters_run(scratch, tmp_path, ADAPTERS.replace("batch_size = 4", "batch_size = 5")))
    with pytest.raises(Vip5Error, match=r"unfinished run with other settings.*--restart"):
        tune(changed)
    assert tune(changed, restart=True).measures.steps == 6


def test_the_same_run_gives_the_same_bundle_and_another_seed_another(scratch: Path, tmp_path: Path) -> None:
    hashes = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = ADAPTERS.replace('out = "bundle"', f'seed = {seed}\nout = "bundle"')
        tune(read_run(adapters_run(scratch, folder, text)))
        hashes.append((folder / "tuned" / "domains" / "toys" / "adapter.safetensors").read_bytes())
    assert hashes[0] == hashes[1] != hashes[2]


def test_everything_tunes_the_backbone_into_a_bundle_of_its_own(scratch: Path, tmp_path: Path) -> None:
    run = read_run(adapters_run(scratch, tmp_path, 'tune = "everything"\n' + ADAPTERS))
    result = tune(run)
    before, after = load_file(scratch / "bundle" / BACKBONE), load_file(tmp_path / "tuned" / BACKBONE)
    assert result.counts.share == 1.0
    assert not torch.equal(before["shared.weight"], after["shared.weight"])
    with pytest.raises(Vip5Error, match="exists already"):
        tune(run)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[images]\ntokens = 2\n", ""),
        ("tokens = 2", "tokens = 1\nnorm = false\nmissing_share = 0.5"),
        ("reduction_factor = 4", "reduction_factor = 2\nin_cross_attention = false\none_for_all_tasks = false"),
        ("batch_size = 4", 'batch_size = 2\ngradient_accumulation = 2\nloss = "per_sample"\nschedule = "cosine"'),
        ("num_candidates = 10", 'targets = "all"\nmax_history = 3\nnum_candidates = 10\ntemplates = ["A-3", "B-8"]'),
        ('out = "bundle"', 'tune_tables = true\nout = "bundle"'),
        ("batch_size = 4", 'batch_size = 4\nprecision = "bfloat16"'),
    ],
    ids=["text only", "images", "adapters", "optimiser", "prompts", "tables", "bfloat16"],
)
def test_every_choice_trains_to_a_domain_that_loads(scratch: Path, tmp_path: Path, old: str, new: str) -> None:
    assert old in ADAPTERS
    tune(read_run(adapters_run(scratch, tmp_path, ADAPTERS.replace(old, new))))
    layout = open_bundle(tmp_path / "tuned").domains["toys"].spec.layout
    assert layout.visual_tokens == {"": 0}.get(new, 1 if "norm = false" in new else 2)
    assert layout.one_adapter_for_all_tasks == ("one_for_all_tasks = false" not in new)
    assert layout.cross_attention_adapter == ("in_cross_attention = false" not in new)


def test_two_domains_from_scratch_share_a_backbone_and_have_additions_of_their_own(tmp_path: Path) -> None:
    text = FROM_SCRATCH.replace("[backbone]", '[[domains]]\nname = "games"\ndata = "data"\n\n[backbone]')
    tune(read_run(write_run(tmp_path, text)))
    toys, games = (weights(tmp_path / "bundle", name) for name in ("toys", "games"))
    name = "encoder.whole_word_embeddings.weight"
    assert not torch.equal(toys[name], games[name])
    norm = "decoder.final_layer_norm.weight"
    assert not torch.equal(toys[norm], games[norm])


def test_the_bundle_says_how_its_domain_was_tuned(scratch: Path) -> None:
    record = json.loads((scratch / "bundle" / "domains" / "toys" / "training.json").read_text(encoding="utf-8"))
    assert record["run"]["optimiser"]["steps"] == 6
    assert record["dataset"]["name"] == "tiny"
    assert [step for step, _ in record["measures"]["train_loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in record["measures"]["validation_loss"]] == [3, 6]
    assert record["parameters"]["share"] == 1.0
    assert record["measures"]["peak_memory_bytes"] > 2**20
