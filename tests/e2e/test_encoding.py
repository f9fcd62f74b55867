"""From pictures to recommendations, through a kill and on a cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from feature_cache.encoding.opening import TorchSource
from feature_cache.encoding.pictures import decode, read_file
from model.bundle.features import load_features
from service.cli import main
from tests.clips import draw_folder, picture, tiny_clip
from tests.e2e.processes import COMMAND, environment
from tests.tiny import tiny_checkpoint, tiny_tokenizer

CLUSTER_PATIENCE_S = 900  # a cluster is a dozen processes, which each import torch


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def run_here(*arguments: object) -> None:
    """`vip5` in this process, which has the libraries loaded already."""
    with pytest.raises(SystemExit) as exited:
        main([str(argument) for argument in arguments])
    assert not exited.value.code


def options(clip: Path, pictures: Path, out: Path) -> list[str]:
    named = {"model": clip, "encoder": "tiny", "images": pictures, "out": out, "batch-size": 2, "num-threads": 1}
    return ["features", "encode", *(str(part) for name, value in named.items() for part in (f"--{name}", value))]


def test_a_run_killed_while_it_reads_goes_on_with_the_same_result(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = draw_folder(tmp_path / "pictures", 6)
    run_here(*options(clip, pictures, tmp_path / "whole"), "--workers", 0)
    pipe = pictures / "item-5.png"
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    command = [*COMMAND, *options(clip, pictures, tmp_path / "killed"), "--workers", "0"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        watcher = threading.Thread(target=_release_when_ended, args=(process, pipe))
        watcher.start()
        with pipe.open("wb"):  # waits until the run reads it, with two batches done
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, process.stderr.read() if process.stderr else ""
        watcher.join()
    assert not (tmp_path / "killed").exists()
    pipe.unlink()
    pipe.write_bytes(content)

    run_here(*options(clip, pictures, tmp_path / "killed"), "--workers", 0)

    assert ", 4 of them by an earlier run" in capsys.readouterr().out
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "killed.work").exists()


def _release_when_ended(process: subprocess.Popen[bytes], pipe: Path) -> None:
    """Lets the test's own opening of the pipe return if the process ends before it has read it."""
    process.wait()
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))


def test_encoded_pictures_are_in_the_prompts_of_a_bundle(clip: Path, tmp_path: Path) -> None:
    pictures = draw_folder(tmp_path / "pictures", 5)
    (pictures / "item-5.png").write_bytes(b"broken")
    features, catalog = tmp_path / "features.safetensors", tmp_path / "items.jsonl"
    catalog.write_text(
        "".join(f'{{"item_id": "item-{n}", "index": "{n}", "image": "item-{n}.png"}}\n' for n in range(1, 6))
    )
    checkpoint = tiny_checkpoint()
    checkpoint.config["image_feature_type"] = "tiny"
    checkpoint.save(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    named = {"checkpoint": "tiny.pth", "config": "tiny.json", "tokenizer": "tokenizer.json", "catalog": "items.jsonl"}
    files = [part for name, file in named.items() for part in (f"--{name}", tmp_path / file)]
    bundle, requests, answers = tmp_path / "bundle", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked = [{"task": "sequential", "domain": "toys", "history": [item], "k": 2} for item in ("item-1", "item-5")]
    requests.write_text("".join(f"{json.dumps(request)}\n" for request in asked))

    for arguments in (
        (*options(clip, pictures, features), "--catalog", catalog, "--workers", 0),
        ("import", "vip5", *files, "--domain", "toys", "--features", features, "--out", bundle),
        ("predict", "--bundle", bundle, "--requests", requests, "--out", answers, "--num-threads", "1"),
    ):
        run_here(*arguments)

    with_picture, without = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(with_picture["items"]) == len(without["items"]) == 2
    assert [note["kind"] for note in with_picture["degraded"]] == ["anonymous_user"]
    assert len(without["degraded"]) == 2, "the picture that could not be read is named"
    encoder = TorchSource(clip, "tiny").load()
    pixels = encoder.preprocessing.pixels(decode(read_file(pictures / "item-1.png")))
    stored = load_features(bundle / "domains" / "toys" / "features.safetensors")
    assert stored.item_ids[0] == "item-1"
    assert np.allclose(stored.features[0], encoder.tower.embed(pixels[None]), rtol=2e-3)


@pytest.mark.usefixtures("only_cluster")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray, of the extra ray, is not installed")
def test_a_ray_cluster_gives_the_same_file(clip: Path, tmp_path: Path, ray_folder: Path) -> None:
    pictures = draw_folder(tmp_path / "pictures", 7)
    (pictures / "item-3.png").write_bytes(b"broken")
    picture(9).rotate(90).save(pictures / "item-8.webp")
    run_here(*options(clip, pictures, tmp_path / "here"), "--workers", 0)
    outcome = subprocess.run(
        [*COMMAND, *options(clip, pictures, tmp_path / "cluster"), "--ray"],
        # Of a niceness, it would starve where other tests run.
        env=environment({"RAY_TMPDIR": str(ray_folder), "RAY_worker_niceness": "0"}),
        capture_output=True,
        text=True,
        timeout=CLUSTER_PATIENCE_S,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("encoded 7 pictures with tiny into")
    assert (tmp_path / "cluster").read_bytes() == (tmp_path / "here").read_bytes()
    assert (tmp_path / "cluster.report.jsonl").read_bytes() == (tmp_path / "here.report.jsonl").read_bytes()
