"""The image encoders of the VIP5 paper, by the names in its configurations."""

from __future__ import annotations

from dataclasses import dataclass

from feature_cache.encoding.errors import EncodingError


@dataclass(frozen=True)
class PaperEncoder:
    """A variant of CLIP. The ResNets have no patches and are read by open_clip only."""

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
    """Raise EncodingError if a tower has other sizes than the paper's encoder of this name, if the paper has one.

    `patch_size` is None if it is not known.
    """
    paper = PAPER_ENCODERS.get(name)
    if paper is None:
        return
    found = {"embeddings": dim, "pictures": image_size}
    expected = {"embeddings": paper.dim, "pictures": paper.image_size}
    if patch_size is not None:
        found["patches"], expected["patches"] = patch_size, paper.patch_size or 0
    for what, size in found.items():
        if size != expected[what]:
            paper_size = f"those of {name} are {expected[what]}" if expected[what] else f"{name} has none"
            raise EncodingError(
                f"the model's {what} are {size} wide, {paper_size}; give the weights of {name}, or a name other than"
                f" {', '.join(PAPER_ENCODERS)}"
            )
