"""Towers give what transformers itself gives, on torch and on ONNX Runtime, and refuse what they are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from feature_cache.encoding.encoders import check_encoder
from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.onnx_export import export_onnx
from feature_cache.encoding.opening import OnnxSource, TorchSource
from feature_cache.encoding.towers import Encoder
from tests.clips import DIM, IMAGE_SIZE, picture

Images = list[Image.Image]


@pytest.fixture(scope="module")
def onnx_file(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    assert export_onnx(encoder, path) < 1e-5
    return path


@pytest.fixture(params=["drawn", "photographs"])
def images(request: pytest.FixtureRequest) -> Images:
    if request.param == "drawn":
        return [picture(seed, (40 + seed, 64 - seed)) for seed in range(5)]
    folder: Path = request.getfixturevalue("shared") / "data" / "images"
    return [Image.open(path, formats=["JPEG"]) for path in sorted(folder.glob("*.jpg"))[:40]]


def embed(encoder: Encoder, images: Images) -> NDArray[np.float32]:
    return encoder.tower.embed(np.stack([encoder.preprocessing.pixels(image) for image in images]))


def cosine_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 - (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def transformers_own(folder: Path, images: Images) -> NDArray[np.float32]:
    clip, processor = CLIPModel.from_pretrained(folder).eval(), CLIPImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        features = clip.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
    return np.asarray(features.numpy())


def test_embeddings_are_those_of_get_image_features(encoder: Encoder, clip_folder: Path, images: Images) -> None:
    ours, theirs = embed(encoder, images), transformers_own(clip_folder, images)
    assert ours.shape == (len(images), DIM)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert cosine_distances(ours[1:], ours[:-1]).max() > 1e-3, "the pictures must differ for this to mean anything"


def test_onnx_runtime_agrees_with_torch(encoder: Encoder, onnx_file: Path, images: Images) -> None:
    exported = OnnxSource(onnx_file, num_threads=1).load()
    assert exported.name == "tiny"
    assert cosine_distances(embed(exported, images), embed(encoder, images)).max() < 1e-3
    assert np.abs(embed(exported, images[:1]) - embed(encoder, images[:1])).max() < 1e-3


def test_a_vision_model_alone_is_read_too(clip_folder: Path, tmp_path: Path) -> None:
    clip = CLIPModel.from_pretrained(clip_folder)
    config = CLIPVisionConfig(**clip.vision_model.config.to_dict() | {"projection_dim": DIM})
    vision = CLIPVisionModelWithProjection(config)
    vision.vision_model.load_state_dict(clip.vision_model.state_dict())
    vision.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    vision.save_pretrained(tmp_path)
    shutil.copy(clip_folder / "preprocessor_config.json", tmp_path)
    images = [picture(1)]
    assert np.allclose(
        embed(TorchSource(tmp_path, "tiny").load(), images), transformers_own(clip_folder, images), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "dim", "image_size", "patch_size", "rule"),
    [
        ("vitb32", 512, 224, 16, "patches are 16 wide, those of vitb32 are 32"),
        ("vitl14", 512, 224, 14, "embeddings are 512 wide, those of vitl14 are 768"),
        ("vitb16", 512, 336, 16, "pictures are 336 wide, those of vitb16 are 224"),
        ("rn101", 512, 224, 32, "patches are 32 wide, rn101 has none"),
    ],
)
def test_a_paper_s_name_is_only_for_its_encoder(
    name: str, dim: int, image_size: int, patch_size: int, rule: str
) -> None:
    with pytest.raises(EncodingError, match=rule):
        check_encoder(name, dim, image_size, patch_size)


def test_the_paper_s_five_and_other_names_pass() -> None:
    for name, dim, patch_size in (("vitb32", 512, 32), ("vitb16", 512, 16), ("vitl14", 768, 14), ("own", 5, 3)):
        check_encoder(name, dim, 224, patch_size)
    for name, dim in (("rn50", 1024), ("rn101", 512)):
        check_encoder(name, dim, 224)


def test_a_model_of_another_name_is_refused(clip_folder: Path, onnx_file: Path) -> None:
    with pytest.raises(EncodingError, match="embeddings are 8 wide, those of vitb32 are 512"):
        TorchSource(clip_folder, "vitb32").load()
    with pytest.raises(EncodingError, match=r"tiny\.onnx is the encoder tiny, not vitb32"):
        OnnxSource(onnx_file, "vitb32").load()


def test_folders_that_are_no_clip_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncodingError, match="holds no CLIP model"):
        TorchSource(tmp_path, "tiny").load()
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncodingError, match="type 'bert'; it must be clip or clip_vision_model"):
        TorchSource(tmp_path, "tiny").load()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncodingError, match=r"config\.json cannot be read"):
        TorchSource(tmp_path, "tiny").load()
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(EncodingError, match=r"preprocessor_config\.json cannot be read"):
        TorchSource(tmp_path, "tiny").load()


def test_broken_weights_and_other_preprocessing_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    for changed, rule in (
        ({"image_processor_type": "ViTImageProcessor"}, "only CLIP's preprocessing"),
        ({"crop_size": {"height": 24, "width": 24}}, f"reads pictures of {IMAGE_SIZE} pixels, .* makes 24"),
        ({"crop_size": {"height": 24, "width": 32}}, "towers read squares"),
        ({"do_center_crop": False, "size": {"shortest_edge": 32}}, "towers read squares"),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | changed))
        with pytest.raises(EncodingError, match=rule):
            TorchSource(tmp_path, "tiny").load()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(EncodingError, match="weights cannot be read"):
        TorchSource(tmp_path, "tiny").load()


@pytest.mark.parametrize(
    ("device", "rule"), [("tpu", "'tpu' is unknown"), ("cuda:99", "no device cuda:99"), ("mps", "not supported")]
)
def test_devices_that_are_not_there_are_refused(device: str, rule: str, clip_folder: Path) -> None:
    with pytest.raises(EncodingError, match=rule):
        TorchSource(clip_folder, "tiny", device).load()


def test_an_onnx_runtime_without_cuda_says_which_extra_has_it(onnx_file: Path) -> None:
    onnxruntime = pytest.importorskip("quiet_libraries.onnx_runtime").onnxruntime
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(EncodingError, match=r"only on .*CPU.*pip install onnxruntime-gpu"):
        OnnxSource(onnx_file, device="cuda").load()


def foreign(path: Path, size: int | str = IMAGE_SIZE, output: str = "image_embeds") -> Path:
    """An ONNX file of another maker: the mean of each colour."""
    pixels = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, size, size])
    means = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["n", 3])
    other = onnx.helper.make_tensor_value_info("last_hidden_state", onnx.TensorProto.FLOAT, ["n", 3, size, size])
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x", "axes"], [output], keepdims=0),
        onnx.helper.make_node("Identity", ["x"], ["last_hidden_state"]),
    ]
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    graph = onnx.helper.make_graph(nodes, "means", [pixels], [other, means], [axes])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_an_onnx_file_made_elsewhere_is_read_when_its_name_and_size_are_said(tmp_path: Path) -> None:
    path = foreign(tmp_path / "own.onnx", "size")
    encoder = OnnxSource(path, "own", IMAGE_SIZE, num_threads=1).load()
    pixels = encoder.preprocessing.pixels(picture(1))
    assert np.allclose(encoder.tower.embed(pixels[None]), pixels.mean(axis=(1, 2)), atol=1e-5)
    with pytest.raises(EncodingError, match="name it with --encoder"):
        OnnxSource(path, None, IMAGE_SIZE).load()
    with pytest.raises(EncodingError, match="give --image-size"):
        OnnxSource(path, "own").load()
    assert OnnxSource(foreign(path, 24), "own").load().preprocessing.image_size == 24
    with pytest.raises(EncodingError, match="reads pictures of 24 pixels, not 32"):
        OnnxSource(path, "own", 32).load()
    with pytest.raises(EncodingError, match="embeddings are 3 wide, those of rn50 are 1024"):
        OnnxSource(path, "rn50").load()


def test_files_that_are_no_image_tower_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(b"broken")
    with pytest.raises(EncodingError, match="not an ONNX file that can be run"):
        OnnxSource(path, "own").load()
    with pytest.raises(EncodingError, match=r"one output .* of embeddings, D fixed"):
        OnnxSource(foreign(path, output="other"), "own").load()
