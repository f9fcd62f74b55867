"""`vip5 features encode`, `export-onnx` and `import`, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from model.bundle.features import load_features
from tests.clips import DIM, draw_folder
from tests.commands import run as run_vip5

THREADS = ("--num-threads", 1)


def run(*arguments: object) -> int:
    """Exit status of `vip5 features` with these arguments."""
    return run_vip5("features", *arguments)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = draw_folder(tmp_path / "pictures", 3)
    (folder / "item-4.jpg").write_bytes(b"broken")
    return folder


def test_a_folder_is_encoded_and_what_was_skipped_is_told(
    pictures: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.safetensors"
    options = ("--model", clip_folder, "--encoder", "tiny", "--images", pictures, "--workers", 0, *THREADS)
    assert run("encode", *options, "--out", out) == 0
    report = tmp_path / "features.report.jsonl"
    captured = capsys.readouterr()
    assert captured.out == f"encoded 3 pictures with tiny into {out}, 1 skipped, see {report}\n"
    assert captured.err == ""
    assert load_features(out).dim == DIM
    with safe_open(out, framework="numpy") as tensors:
        assert tensors.metadata()["encoder"] == "tiny"
    assert json.loads(report.read_text())["item"] == "item-4"


def test_torch_and_an_exported_file_give_the_same_catalog(
    pictures: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = tmp_path / "items.jsonl"
    rows = [{"item_id": "a", "image": "item-3.png"}, {"item_id": "b"}, {"item_id": "c", "image": "item-1.png"}]
    catalog.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    named = ("--encoder", "tiny")
    assert run("export-onnx", "--model", clip_folder, *named, "--out", tmp_path / "tiny.onnx") == 0
    assert "exported tiny to" in capsys.readouterr().out
    found = []
    for name, source in (("torch", ("--model", clip_folder, *named)), ("onnx", ("--onnx", tmp_path / "tiny.onnx"))):
        options = ("--catalog", catalog, "--images", pictures, "--workers", 0, *THREADS)
        assert run("encode", *source, *options, "--out", tmp_path / name) == 0
        found.append(load_features(tmp_path / name))
    assert [each.item_ids for each in found] == [("a", "c"), ("a", "c")]
    assert np.allclose(found[0].features, found[1].features, atol=1e-2)
    assert not np.allclose(found[0].features[0], found[0].features[1], atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "clip", "--encoder", "tiny"), "give --images, --catalog or both"),
        (("--images", "pictures"), "give either --model or --onnx"),
        (("--images", "pictures", "--model", "clip", "--onnx", "own.onnx"), "give either --model or --onnx"),
        (("--images", "pictures", "--model", "clip"), "name the model's encoder with --encoder"),
    ],
)
def test_wrong_usage_says_what_is_missing(
    options: tuple[str, ...],
    message: str,
    pictures: Path,
    clip_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own.onnx").touch()
    places = {"clip": clip_folder, "pictures": pictures, "own.onnx": tmp_path / "own.onnx"}
    assert run("encode", "--out", tmp_path / "out", *(places.get(option, option) for option in options)) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"image": "a.jpg"}', "items.jsonl has no column item_id"),
        ('{"item_id": "a"}', "no item of the catalog names a picture"),
        ('{"item_id": "a", "image": "a"}\n{"item_id": "a", "image": "b"}', "'a' occurs in 2 rows"),
        ("{", "is not readable JSON lines"),
    ],
)
def test_a_catalog_that_breaks_a_rule_is_one_line_and_status_1(
    row: str, message: str, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = tmp_path / "items.jsonl"
    catalog.write_text(f"{row}\n")
    options = ("--model", clip_folder, "--encoder", "tiny", "--catalog", catalog)
    assert run("encode", *options, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_as_vip5_has_it_becomes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, catalog = tmp_path / "features" / "vitb32_features", tmp_path / "items.jsonl"
    for split, asin in (("toys", "B1"), ("toys", "B2"), ("beauty", "B3"), ("beauty", "other")):
        (folder / split).mkdir(parents=True, exist_ok=True)
        np.save(folder / split / f"{asin}.npy", np.full(4, int(asin[-1]) if asin[-1].isdigit() else 9, np.float32))
    (folder / "toys" / "B4.npy").write_bytes(b"broken")
    catalog.write_text("".join(f'{{"item_id": "B{n}", "index": "{n}"}}\n' for n in (3, 1, 4, 5)))
    out = tmp_path / "features.safetensors"

    assert run("import", "--features", folder, "--catalog", catalog, "--out", out) == 0

    captured = capsys.readouterr()
    assert captured.out == f"imported 2 embeddings, 4 wide, of 4 items into {out}\n"
    assert "B4.npy" in captured.err
    found = load_features(out)
    assert found.item_ids == ("B3", "B1")
    assert found.features[:, 0].tolist() == [3, 1]
