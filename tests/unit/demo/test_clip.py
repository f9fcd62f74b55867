from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from demo.clip import DIM, TinyClip, caption, retrieval_accuracy, train_clip, untrained_clip
from demo.designs import TOYS, Design, Look
from demo.drawing import draw

DESIGNS = [
    Design(kind, Look(colour, pattern, "classic"))
    for kind in TOYS.kinds[:3]
    for colour in ("red", "green", "blue")
    for pattern in ("plain", "striped")
]
CAPTIONS = [caption(design) for design in DESIGNS]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [draw(design) for design in DESIGNS]


@pytest.fixture(scope="module")
def trained(pictures: list[Image.Image]) -> TinyClip:
    clip = untrained_clip([kind.name for kind in TOYS.kinds], seed=1)
    train_clip(clip, pictures, CAPTIONS, num_steps=50, seed=1)
    return clip


def test_training_brings_pictures_to_their_captions(trained: TinyClip, pictures: list[Image.Image]) -> None:
    untrained = untrained_clip([kind.name for kind in TOYS.kinds], seed=1)
    assert retrieval_accuracy(untrained, pictures, CAPTIONS) < 0.2
    assert retrieval_accuracy(trained, pictures, CAPTIONS) > 0.4


def test_a_caption_names_all_that_the_picture_shows() -> None:
    assert caption(DESIGNS[1]) == "a classic striped red ball"


def test_embeddings_are_those_of_transformers_for_the_saved_folder(
    trained: TinyClip, pictures: list[Image.Image], tmp_path: Path
) -> None:
    trained.save(tmp_path)
    model = CLIPModel.from_pretrained(tmp_path).eval()
    processor = CLIPImageProcessorPil.from_pretrained(tmp_path)
    with torch.no_grad():
        features = model.get_image_features(**processor(pictures, return_tensors="pt")).pooler_output
    embedded = trained.embed_pictures(pictures)
    assert embedded.shape == (len(pictures), DIM)
    assert embedded.dtype == np.float16
    np.testing.assert_allclose(embedded, features.numpy(), atol=2e-2)


def test_the_saved_tokenizer_reads_captions(trained: TinyClip, tmp_path: Path) -> None:
    trained.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    words = tokenizer.convert_ids_to_tokens(tokenizer(CAPTIONS[0])["input_ids"])
    assert words == ["<start>", "a", "classic", "plain", "red", "ball", "<end>"]


def test_the_same_seed_trains_the_same_encoder(pictures: list[Image.Image]) -> None:
    first, second = (untrained_clip(["ball"], seed=3) for _ in range(2))
    train_clip(first, pictures, CAPTIONS, num_steps=2, seed=3)
    random.random()  # what else draws random numbers does not matter
    train_clip(second, pictures, CAPTIONS, num_steps=2, seed=3)
    np.testing.assert_array_equal(first.embed_pictures(pictures), second.embed_pictures(pictures))
