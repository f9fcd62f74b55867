from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.bundle.bundle import open_bundle
from service.cli import main
from tests.tiny import tiny_bundle, tiny_checkpoint, tiny_tokenizer


def run(*arguments: object) -> int:
    """Exit status of `vip5` with these arguments."""
    with pytest.raises(SystemExit) as exited:
        main([str(argument) for argument in arguments])
    return int(exited.value.code or 0)


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


def test_a_refusal_is_one_line_on_standard_error_and_status_1(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "vip5", *import_options(files)) == 0
    capsys.readouterr()
    assert run("import", "vip5", *import_options(files)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: the bundle has a domain 'toys' already; choose another name, or replace it\n"
    assert run("import", "vip5", *import_options(files), "--replace") == 0


def test_a_failing_disk_is_one_line_too(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.bundle.writer.publish", fail)
    assert run("import", "vip5", *import_options(files)) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    "arguments", [["import", "vip5"], ["import", "vip6"], ["bundle", "verify"], ["import", "t5", "--model", "/none"]]
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert run(*arguments) == 2


@pytest.mark.parametrize(
    "command", [["import", "vip5"], ["import", "p5"], ["import", "t5"], ["bundle", "verify"], ["bundle", "show"]]
)
def test_every_command_has_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    assert f"Example: vip5 {' '.join(command)}" in capsys.readouterr().out


def test_an_untouched_bundle_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_bundle(tmp_path, ("toys", "games"))
    assert run("bundle", "verify", root) == 0
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
    assert run("bundle", "show", root) == 0
    out = capsys.readouterr().out
    for text in (open_bundle(root).hash, "domain toys", "120, 108 of them active", "vitb32, 8 wide, 2 tokens each"):
        assert text in out
