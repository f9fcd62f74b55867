"""An assembled prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Prompt:
    """What the encoder reads, except image features.

    S is the number of tokens, including `</s>`. `image_items` are catalog rows, one per image in the order of the text;
    there may be more images than fit into the S tokens, because a long text is cut at the end, but its images are not.
    """

    input_ids: Ids  # [S]
    whole_word_ids: Ids  # [S]
    category_ids: Ids  # [S]
    image_items: tuple[int, ...]
    num_tokens_untruncated: int

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def is_truncated(self) -> bool:
        return self.num_tokens < self.num_tokens_untruncated

    def num_images_shown(self, visual_tokens: int) -> int:
        """Number of images with at least one token in the prompt; each image has `visual_tokens` tokens."""
        return -(-int(np.count_nonzero(self.category_ids)) // visual_tokens) if visual_tokens else 0
