from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.make import main, make
from model.bundle.bundle import Bundle, open_bundle
from model.prompts.tokenizer import TextTokenizer

ROOT = Path(__file__).parents[3]
NUM_ITEMS = 24


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "bundle"
    make(out, NUM_ITEMS)
    return out


@pytest.fixture(scope="module")
def bundle(out: Path) -> Bundle:
    return open_bundle(out)


def test_the_demonstration_is_a_bundle_of_two_untrained_domains(bundle: Bundle) -> None:
    assert sorted(bundle.domains) == ["garments", "toys"]
    for domain in bundle.domains.values():
        assert len(domain.catalog) == NUM_ITEMS
        assert not domain.spec.trained
        assert domain.spec.encoder is not None
        assert domain.spec.encoder.name == "demo-descriptor"
        assert domain.features_path is not None


def test_another_process_makes_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    code = f"from pathlib import Path; from demo.make import make; print(make(Path('bundle'), {NUM_ITEMS}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "42"}
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert made.stdout.split() == [bundle.hash]


def test_every_item_has_its_picture(out: Path, bundle: Bundle) -> None:
    for domain in bundle.domains.values():
        for image in domain.catalog.images:
            assert image is not None
            with Image.open(out.with_name("bundle-pictures") / image) as picture:
                assert picture.size == (128, 128)


def test_requests_speak_of_known_users_and_items(out: Path, bundle: Bundle) -> None:
    bodies = [json.loads(line) for line in out.with_name("bundle-requests.jsonl").read_text().splitlines()]
    assert {body["task"] for body in bodies} == {"sequential", "direct", "explanation"}
    for body in bodies:
        domain = bundle.domains[body["domain"]]
        assert domain.users is not None
        assert domain.users.find(body["user_id"]) is not None
        item_ids = body.get("history") or body.get("candidates") or [body["item_id"]]
        assert all(domain.catalog.row_of(item_id) is not None for item_id in item_ids)


def test_the_tokenizer_keeps_to_t5_conventions(bundle: Bundle) -> None:
    tokenizer = bundle.tokenizer
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert tokenizer.image_id == tokenizer.vocab_size - 1
    text = "Here is the purchase history list of user_7 so that it tells what comes next"
    assert tokenizer.unk_id not in tokenizer.words(text)
    assert tokenizer.decode(tokenizer.words(text)) == text


def test_identifiers_vary_in_length(bundle: Bundle) -> None:
    assert len(_lengths(bundle.tokenizer, bundle.domains["garments"].catalog.indices)) > 1
    assert len(_lengths(bundle.tokenizer, [str(number) for number in range(1, 320)])) > 1


def test_a_folder_that_exists_is_left_alone(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (out / "manifest.json").read_bytes()
    assert main(["--out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (out / "manifest.json").read_bytes() == before


def _lengths(tokenizer: TextTokenizer, indices: tuple[str, ...] | list[str]) -> set[int]:
    return set(np.array([len(ids) for ids in tokenizer.identifiers(indices)]).tolist())
