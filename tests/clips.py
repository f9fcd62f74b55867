"""A tiny CLIP with random weights in Hugging Face's form, and pictures to encode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel
from transformers.utils import logging

DIM = 8
IMAGE_SIZE = 32


def tiny_clip(folder: Path, dim: int = DIM) -> Path:
    """Saved with its preprocessing, as `save_pretrained` writes them."""
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=text | {"vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2},
        vision_config=vision | {"image_size": IMAGE_SIZE, "patch_size": 8},
        projection_dim=dim,
    )
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPModel(config)
    for weights in clip.vision_model.parameters():
        weights.data.mul_(8)  # far enough from 0 that pictures differ in their embeddings
    clip.save_pretrained(folder)
    edges = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=edges).save_pretrained(folder)
    return folder


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Coarse coloured noise, [height, width] swapped as Pillow has it."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size)


def draw_folder(folder: Path, num_pictures: int) -> Path:
    """`item-1.png`… in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, num_pictures + 1):
        picture(number).save(folder / f"item-{number}.png")
    return folder
