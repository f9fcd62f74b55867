"""The demonstration's picture encoder: a tiny CLIP, trained from scratch on drawn pictures and captions.

Saved in Hugging Face's format (CLIPModel, tokenizer, image processor), so that any tool that reads CLIP can read it.
"""

# P pairs, D width of the joint space

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from demo.designs import COLOURS, PATTERNS, STYLES, Design
from model.progress import Progress, no_progress

NAME = "demo-clip"
DIM = 48

_SIDE = 64
_PATCH = 8
_SPECIALS = ("<pad>", "<start>", "<end>", "<unknown>")
_BATCH = 64
_LEARNING_RATE = 1e-3
_WARM_UP = 0.1  # of the steps
_LONGEST_SHIFT = 3  # pixels that a picture may be moved by while training


@dataclass(frozen=True, eq=False)
class TinyClip:
    """The model with its tokenizer and its image processor."""

    model: CLIPModel
    tokenizer: PreTrainedTokenizerFast
    processor: CLIPImageProcessorPil

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def loaded(self, folder: Path) -> TinyClip:
        """The same tokenizer and processor with the weights in a folder."""
        return TinyClip(CLIPModel.from_pretrained(folder).eval(), self.tokenizer, self.processor)

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[P, 3, _SIDE, _SIDE]."""
        values: Tensor = self.processor(list(pictures), return_tensors="pt")["pixel_values"]
        return values

    @torch.no_grad()
    def embed_pictures(self, pictures: Sequence[Image.Image]) -> NDArray[np.float16]:
        """The projected embeddings, not normalised: [P, DIM]."""
        batches = [pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)]
        embedded = [_projected(self.model.get_image_features(self.pixels(batch))) for batch in batches]
        return torch.cat(embedded).numpy().astype(np.float16)

    @torch.no_grad()
    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        """[P, DIM]."""
        tokens = self.tokenizer(list(captions), return_tensors="pt", padding=True)
        return _projected(self.model.get_text_features(**tokens))


def caption(design: Design) -> str:
    """A description of the picture."""
    look = design.look
    return f"a {look.style} {look.pattern} {look.colour} {design.kind.name}"


def untrained_clip(kinds: Iterable[str], seed: int) -> TinyClip:
    """A CLIP with random weights, for captions of these kinds of things."""
    tokenizer = _tokenizer(kinds)
    torch.manual_seed(seed)
    tower = {"num_attention_heads": 4, "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 128}
    config = CLIPConfig(
        vision_config={**tower, "image_size": _SIDE, "patch_size": _PATCH, "projection_dim": DIM},
        text_config={
            **tower,
            "num_hidden_layers": 1,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "projection_dim": DIM,
        },
        projection_dim=DIM,
    )
    size = {"height": _SIDE, "width": _SIDE}
    processor = CLIPImageProcessorPil(size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return TinyClip(CLIPModel(config).eval(), tokenizer, processor)


def train_clip(
    clip: TinyClip,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    num_steps: int,
    seed: int,
    progress: Progress = no_progress,
) -> None:
    """Train with CLIP's contrastive loss."""
    pixels = clip.pixels(pictures)
    tokens = clip.tokenizer(list(captions), return_tensors="pt", padding=True)
    optimiser = torch.optim.AdamW(clip.model.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=_LEARNING_RATE, total_steps=num_steps, pct_start=_WARM_UP
    )
    chance = random.Random(f"clip {seed}")
    clip.model.train()
    for step in range(1, num_steps + 1):
        rows = _different(captions, chance)
        output = clip.model(
            pixel_values=_jittered(pixels[rows], chance),
            input_ids=tokens["input_ids"][rows],
            attention_mask=tokens["attention_mask"][rows],
            return_loss=True,
        )
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        schedule.step()
        progress(f"training the encoder, loss {output.loss.item():.2f}", step, num_steps)
    clip.model.eval()


def retrieval_accuracy(clip: TinyClip, pictures: Sequence[Image.Image], captions: Sequence[str]) -> float:
    """Share of the pictures whose own caption is the nearest of all captions."""
    images = torch.nn.functional.normalize(torch.from_numpy(clip.embed_pictures(pictures)).float(), dim=-1)
    texts = torch.nn.functional.normalize(clip.embed_captions(captions), dim=-1)
    nearest = (images @ texts.T).argmax(1)
    return float((nearest == torch.arange(len(pictures))).float().mean())


def _different(captions: Sequence[str], chance: random.Random) -> list[int]:
    """A batch of rows with different captions."""
    rows = chance.sample(range(len(captions)), min(len(captions), 2 * _BATCH))
    return list({captions[row]: row for row in rows}.values())[:_BATCH]


def _jittered(pixels: Tensor, chance: random.Random) -> Tensor:
    """The pictures moved a little, half of them mirrored, lighter or darker: [P, 3, _SIDE, _SIDE]."""
    shift = [chance.randint(-_LONGEST_SHIFT, _LONGEST_SHIFT) for _ in range(2)]
    moved = torch.roll(pixels, shift, dims=(2, 3))
    if chance.random() < 0.5:
        moved = moved.flip(3)
    return moved * chance.uniform(0.9, 1.1) + chance.uniform(-0.05, 0.05)


def _projected(features: object) -> Tensor:
    """The embeddings; newer versions of the library return them as `pooler_output`."""
    embeddings = getattr(features, "pooler_output", features)
    assert isinstance(embeddings, Tensor)
    return embeddings


def _tokenizer(kinds: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per word; captions use few words."""
    words = (*_SPECIALS, "a", *COLOURS, *PATTERNS, *STYLES, *kinds)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=_SPECIALS[3]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, words.index(name)) for name in _SPECIALS[1:3]]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    pad, start, end, unknown = _SPECIALS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        unk_token=unknown,
        model_max_length=16,
    )
