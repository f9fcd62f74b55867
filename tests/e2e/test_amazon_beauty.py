"""Every command of examples/amazon-beauty, with small stand-ins for what it downloads."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import random
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from model.bundle.bundle import open_bundle
from model.evaluation.report import Report
from tests.clips import picture
from tests.conftest import ROOT
from tests.e2e.pasted import blocks_of, paste
from tests.e2e.processes import serving
from tests.server_threads import serving_in_a_thread
from tests.unit.bundle.test_import_t5 import saved, t5
from tests.unit.datasets.sources import write_json_lines, write_lines

EXAMPLE = ROOT / "examples" / "amazon-beauty"
DOWNLOAD, PURCHASES, PICTURES, IDENTIFIERS, TRAIN, MEASURE, SERVE, ASK = blocks_of(EXAMPLE / "README.md")
ASINS = ["B004756YJA", "B004ZT0SSG", *(f"B0000{number:05}" for number in range(14))]
SHORTER = {
    "steps = 20000": "steps = 4",
    "batch_size = 64": "batch_size = 4",
    "drawing_processes = 2": "drawing_processes = 0",
    'precision = "bfloat16"': 'precision = "float32"',
    "validate_every = 1000": "validate_every = 4",
    "validation_users = 2000": "validation_users = 3",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the example's run, shortened."""
    run = (EXAMPLE / "run.toml").read_text(encoding="utf-8")
    for long, short in SHORTER.items():
        assert long in run
        run = run.replace(long, short)
    (tmp_path / "examples" / "amazon-beauty").mkdir(parents=True)
    (tmp_path / "examples" / "amazon-beauty" / "run.toml").write_text(run)
    return tmp_path


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server has a picture for each item but the last."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, asin in enumerate(ASINS[:-1]):
        picture(number).save(folder / f"{asin}.jpg")
    quiet = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    with serving_in_a_thread(server):
        yield f"127.0.0.1:{server.server_port}"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


def test_the_readme_can_be_pasted_from_mcauley_s_files_to_a_service(place: Path, pictures: str) -> None:
    with contextlib.chdir(place):
        write_stand_ins(Path("data"), pictures)
        for line in DOWNLOAD:
            check_download(line)
        for line in PURCHASES:
            paste(line)
        encode, prepare = PICTURES
        paste(on_cpu(encode), "--workers", "0", "--allow-host", pictures)
        missed = [json.loads(line) for line in Path("data/beauty/features.report.jsonl").read_text().splitlines()]
        assert [fault["item"] for fault in missed] == ASINS[-1:]
        for line in (prepare, *IDENTIFIERS, *TRAIN, *MEASURE):
            paste(on_cpu(line))
        report = Report.read(Path("data/beauty/result.json"))
        assert {result.name for result in report.results} >= {"A-3", "A-9", "popularity", "decayed-co-occurrence"}
        assert report.history_excluded
        spec = open_bundle(Path("bundles/beauty")).domains["beauty"].spec
        assert spec.encoder is not None
        assert (spec.encoder.name, spec.layout.feature_dim) == ("vitb32", 512)
        (serve,) = SERVE
        assert on_cpu(serve).split() == [".venv/bin/vip5", "serve", "--bundle", "bundles/beauty", "--device", "cpu"]
        with serving(Path("bundles/beauty")) as server:
            answer = json.loads(paste(ASK[0], url=server.url))
        assert len(answer["items"]) == 5
        assert answer["degraded"] == []


def write_stand_ins(folder: Path, pictures: str) -> None:
    """24 reviewers of 7 items each; a CLIP and a T5 of the right shape with random weights."""
    chance = random.Random(3)
    reviews = [
        {"reviewerID": user, "asin": asin, "unixReviewTime": time, "overall": 5.0, "summary": "fine"}
        for user in ("A1YJEY40YUW4SE", *(f"U{number}" for number in range(23)))
        for time, asin in enumerate(chance.sample(ASINS, 7))
    ]
    write_json_lines(folder / "beauty" / "reviews.json.gz", reviews)
    metadata = [
        {"asin": asin, "title": f"Cream {number}", "imUrl": f"http://{pictures}/{asin}.jpg", "categories": [["Beauty"]]}
        for number, asin in enumerate(ASINS)
    ]
    write_lines(folder / "beauty" / "meta.json.gz", map(repr, metadata))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    vision = {"image_size": 224, "patch_size": 32}
    clip = folder / "clip-vit-base-patch32"
    CLIPModel(CLIPConfig(text_config=small | text, vision_config=small | vision, projection_dim=512)).save_pretrained(
        clip
    )
    CLIPImageProcessorPil().save_pretrained(clip)
    saved(folder / "t5-small", t5())


def check_download(line: str) -> None:
    """That a command would put a file or a folder where its stand-in is."""
    words = shlex.split(line)
    if words[0] == "mkdir":
        assert Path(words[-1]).is_dir()
    elif words[0] == "curl":
        assert Path(words[words.index("-o") + 1]).is_file()
        assert words[-1].startswith("https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/")
    else:
        assert words[:2] == [".venv/bin/hf", "download"]
        assert Path(words[words.index("--local-dir") + 1], "config.json").is_file()


def on_cpu(line: str) -> str:
    assert " cpu" not in line
    return line.replace("--device cuda", "--device cpu")
