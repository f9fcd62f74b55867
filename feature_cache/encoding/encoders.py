"""The image encoders of VIP5's paper, by the names that its configurations use."""

from __future__ import annotations

from dataclasses import dataclass

from feature_cache.encoding.errors import EncodingError


@dataclass(frozen=True)
class PaperEncoder:
    """One of CLIP's variants. The residual networks have no patches and are read by open_clip alone."""

    name: str
    dim: int
    patch_size: int | None
    open_clip_name: str
    image_size: int = 224


PAPER_ENCODERS = {
    encoder.name: encoder
    for encoder in (
        PaperEncoder("vitb32", 512, 32, "ViT-B-32-quickgelu"),
        PaperEncoder("vitb16", 512, 16, "ViT-B-16-quickgelu"),
        PaperEncoder("vitl14", 768, 14, "ViT-L-14-quickgelu"),
        PaperEncoder("rn50", 1024, None, "RN50-quickgelu"),
        PaperEncoder("rn101", 512, None, "RN101-quickgelu"),
    )
}


def check_encoder(name: str, dim: int, image_size: int, patch_size: int | None = None) -> None:
    """Raise EncodingError if a tower cannot be the paper's encoder of this name; other names are the user's own.

    `patch_size` is None where the tower does not tell.
    """
    due = PAPER_ENCODERS.get(name)
    if due is None:
        return
    found = {"embeddings": dim, "pictures": image_size}
    expected = {"embeddings": due.dim, "pictures": due.image_size}
    if patch_size is not None:
        found["patches"], expected["patches"] = patch_size, due.patch_size or 0
    for what, size in found.items():
        if size != expected[what]:
            raise EncodingError(
                f"the model's {what} are {size} wide, those of {name} are {expected[what] or 'none'}; give the weights"
                f" of {name}, or name the encoder otherwise than {', '.join(PAPER_ENCODERS)}"
            )
