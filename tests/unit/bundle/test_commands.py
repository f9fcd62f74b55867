from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.bundle.bundle import open_bundle
from model.bundle.index.cache import IndexCache
from tests.commands import run
from tests.tiny import tiny_bundle, tiny_checkpoint, tiny_tokenizer


@pytest.fixture
def files(tmp_path: Path) -> Path:
    tiny_checkpoint().save(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "index": "1"}\n{"item_id": "b", "index": "2"}\n')
    return tmp_path


def import_options(files: Path) -> list[object]:
    named = {"checkpoint": "tiny.pth", "config": "tiny.json", "tokenizer": "tokenizer.json", "catalog": "items.jsonl"}
    options = [part for name, file in named.items() for part in (f"--{name}", files / file)]
    return [*options, "--domain", "toys", "--out", files / "bundle"]


def test_importing_makes_a_bundle_and_says_so(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "vip5", *import_options(files)) == 0
    bundle = open_bundle(files / "bundle")
    assert capsys.readouterr().out == f"imported toys into {files / 'bundle'}, bundle {bundle.hash}\n"


def test_indexes_are_compiled_ahead(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, folder = tiny_bundle(files, ("toys", "garments")), files / "indexes"
    assert run("bundle", "index", "--bundle", root, "--index-cache", folder) == 0
    (kept,) = folder.iterdir()  # both domains have the same items
    assert [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"{kept} is the index of {name}" for name in ("garments", "toys")
    ]
    opened = open_bundle(root, None, IndexCache(folder)).domains["toys"]
    assert opened.index is not None
    assert opened.index.key == kept.stem


def test_a_folder_that_others_write_to_keeps_no_index(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "indexes").mkdir(mode=0o777)
    (files / "indexes").chmod(0o777)
    assert run("bundle", "index", "--bundle", tiny_bundle(files), "--index-cache", files / "indexes") == 2
    assert "give --index-cache a folder that only you write to" in capsys.readouterr().err
    assert run("bundle", "index", "--bundle", files / "bundle", "--index-cache", "off") == 2


def test_importing_says_which_embeddings_and_items_did_not_meet(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item_ids = [json.loads(line)["item_id"] for line in (files / "items.jsonl").read_text().splitlines()]
    (files / "features").mkdir()
    for name in (*item_ids[1:], "other"):
        np.save(files / "features" / f"{name}.npy", np.ones(8, np.float32))
    assert run("import", "vip5", *import_options(files), "--features", files / "features") == 0
    of = len(item_ids)
    assert capsys.readouterr().err == (
        f"{of - 1} of {of} items have an embedding, 1 does not: {item_ids[0]!r}; 1 file matches no item: 'other.npy'\n"
    )


def test_a_domain_that_exists_is_refused_in_one_line_on_standard_error(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", "vip5", *import_options(files)) == 0
    capsys.readouterr()
    assert run("import", "vip5", *import_options(files)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    present = f"{files / 'bundle'} has a domain 'toys' already"
    assert captured.err == f"error: {present}; choose another name, or give --replace\n"
    assert run("import", "vip5", *import_options(files), "--replace") == 0


def test_a_failing_disk_is_one_line_too(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.bundle.writer.publish", fail)
    assert run("import", "vip5", *import_options(files)) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


def test_a_new_bundle_needs_a_tokenizer_and_a_domain_a_name_that_can_be_one(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = import_options(files)
    without = options[:4] + options[6:]
    assert run("import", "vip5", *without) == 2
    assert capsys.readouterr().err == (
        f"error: {files / 'bundle'} is not a bundle yet, and a new one needs the model's tokenizer; give --tokenizer\n"
    )
    assert run("import", "vip5", *options, "--domain", "a/b") == 2
    assert "--domain 'a/b' cannot name a domain" in capsys.readouterr().err
    assert run("import", "vip5", *options) == 0
    assert run("import", "vip5", *without, "--domain", "games") == 0


def test_an_untouched_bundle_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_bundle(tmp_path, ("toys", "games"))
    assert run("bundle", "verify", "--bundle", root) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"ok: {root} holds 2 domains with 240 items in ")
    assert out.endswith(f"bundle {open_bundle(root).hash}\n")


def test_a_tampered_bundle_does_not_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_bundle(tmp_path)
    (root / "domains/toys/users.parquet").unlink()
    assert run("bundle", "verify", root) == 1
    captured = capsys.readouterr()
    assert captured.err == "error: domains/toys/users.parquet is missing; copy the bundle again from its source\n"


def test_show_as_json_says_what_the_bundle_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_bundle(tmp_path)
    assert run("bundle", "show", root, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    bundle = open_bundle(root)
    (toys,) = shown["domains"]
    assert shown["hash"] == bundle.hash
    assert shown["size"] == sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and p.name != "manifest.json")
    assert shown["backbone"]["config"]["d_model"] == bundle.backbone.config.d_model
    assert shown["backbone"]["num_parameters"] == sum(t.numel() for t in bundle.backbone.weights.values())
    assert (toys["name"], toys["num_items"], toys["num_active_items"], toys["num_users"]) == ("toys", 120, 108, 9)
    assert toys["has_features"]
    assert not toys["trained"]
    assert toys["columns"] == ["category", "price", "tags"]
    assert toys["encoder"] == {"name": "vitb32", "dim": 8}


def test_show_draws_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_bundle(tmp_path)
    assert run("bundle", "show", "--bundle", root) == 0
    out = capsys.readouterr().out
    for text in (open_bundle(root).hash, "domain toys", "120, 108 of them active", "vitb32, 8 wide, 2 tokens each"):
        assert text in out
    assert "in the bundle, 110 of 120 items have an embedding" in out
