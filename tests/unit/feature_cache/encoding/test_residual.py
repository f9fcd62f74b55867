"""The residual networks, read by open_clip."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.onnx_export import export_onnx
from feature_cache.encoding.opening import OnnxSource, TorchSource
from tests.clips import picture

CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def open_clip() -> ModuleType:
    try:
        return importlib.import_module("open_clip")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip, of the extra open-clip, cannot be imported here ({error})")


@pytest.fixture
def folder(open_clip: ModuleType, tmp_path: Path) -> Path:
    """A tiny residual CLIP in open_clip's form."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    clip = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path


def test_a_folder_gives_what_encode_image_and_its_own_preprocessing_give(open_clip: ModuleType, folder: Path) -> None:
    encoder = TorchSource(folder, "own").load()
    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    clip.eval()
    for seed in range(4):
        image = picture(seed, (90 + seed, 70))
        with torch.no_grad():
            expected = clip.encode_image(preprocess(image)[None]).numpy()
        found = encoder.tower.embed(encoder.preprocessing.pixels(image)[None])
        assert found.shape == (1, 12)
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_folder_is_exported_to_onnx(folder: Path, tmp_path: Path) -> None:
    encoder = TorchSource(folder, "own").load()
    assert export_onnx(encoder, tmp_path / "own.onnx") < 1e-5
    pixels = encoder.preprocessing.pixels(picture(1))[None]
    exported = OnnxSource(tmp_path / "own.onnx", num_threads=1).load()
    assert np.allclose(exported.tower.embed(pixels), encoder.tower.embed(pixels), atol=1e-4)


@pytest.mark.parametrize("suffix", [".archive.pt", ".pt", ".safetensors"])
def test_rn50_is_read_from_a_file_of_openai_s_weights(suffix: str, open_clip: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = open_clip.create_model("RN50-quickgelu").eval()
    path = tmp_path / f"RN50{suffix}"
    if suffix == ".archive.pt":
        mask = clip.attn_mask
        del clip.attn_mask
        clip.attn_mask = mask  # no buffer, as in OpenAI's own code
        example = torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)
        torch.jit.save(torch.jit.trace(clip, example, check_trace=False), path)
    elif suffix == ".pt":
        torch.save(clip.state_dict(), path)
    else:
        save_file(clip.state_dict(), path)
    encoder = TorchSource(path, "rn50").load()
    pixels = encoder.preprocessing.pixels(picture(1))[None]
    with torch.no_grad():
        expected = clip.encode_image(torch.from_numpy(pixels)).numpy()
    assert expected.shape == (1, 1024)
    # A .pt file counts as OpenAI's, whose weights are in half precision.
    distance = np.abs(encoder.tower.embed(pixels) - expected).max() / np.abs(expected).max()
    assert distance < (1e-5 if suffix == ".safetensors" else 1e-2)


def test_weights_that_are_not_clip_s_are_refused(open_clip: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(EncodingError, match="open_clip cannot read these weights"):
        TorchSource(path, "rn50").load()
    with pytest.raises(
        EncodingError, match="so the encoder's name must tell the architecture, and 'own' is not one of"
    ):
        TorchSource(path, "own").load()


def test_without_open_clip_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (tmp_path / "rn50.safetensors").touch()
    with pytest.raises(
        EncodingError,
        match=r"open_clip, which this encoder needs, cannot be imported .* pip install 'vip5-serve\[open-clip\]'",
    ):
        TorchSource(tmp_path / "rn50.safetensors", "rn50").load()


def test_a_torchvision_that_does_not_fit_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open_clip.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "rn50.safetensors").touch()
    with pytest.raises(EncodingError, match=r"nms does not exist.*torchvision for torch .* --onnx"):
        TorchSource(tmp_path / "rn50.safetensors", "rn50").load()
