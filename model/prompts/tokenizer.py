"""T5's tokenizer, word by word.

T5's pieces never cross a space, so the tokens of a text are those of its words in order, and a text can be tokenised in
parts that are split at spaces. Names of special tokens in texts are removed, because the assembly places special tokens
by id. Identifiers keep them, because they may consist of a model's extra tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from model.errors import BundleError

PAD, EOS, UNK, IMAGE = "<pad>", "</s>", "<unk>", "<extra_id_0>"
WORD_START = "▁"

# Spaces that Hugging Face's tokenizers remove when decoding, in their order.
_JOINED = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)

_TEXT_SPECIALS = re.compile(r"<pad>|</s>|<unk>|<extra_id_\d+>")


class TextTokenizer:
    """Tokenises words and decodes ids; raises BundleError for a vocabulary without T5's special tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.pad_id = self._id_of(PAD)
        self.eos_id = self._id_of(EOS)
        self.unk_id = self._id_of(UNK)
        self.image_id = self._id_of(IMAGE)
        self.vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
        self._starts_word = self._word_starts()
        self._not_text = self._special_ids()

    @classmethod
    def from_file(cls, path: Path) -> TextTokenizer:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path.name} is not a readable tokenizer file: {error}") from error
        return cls.parse(content, path.name)

    @classmethod
    def parse(cls, content: bytes, name: str) -> TextTokenizer:
        """From the content of a file, which messages call `name`."""
        try:
            tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises Exception itself
            raise BundleError(f"{name} is not a readable tokenizer file: {error}") from error
        return cls(tokenizer)

    def words(self, text: str) -> list[int]:
        """Ids of a text without `</s>`; names of special tokens in it are removed."""
        return self._text_ids(self._tokenizer.encode(without_specials(text), add_special_tokens=False))

    def identifiers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of item identifiers without `</s>`; special tokens in them are kept."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(encoding.ids) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens and without the spaces before punctuation in T5's targets."""
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        for spaced, joined in _JOINED:
            text = text.replace(spaced, joined)
        return text.strip()

    def token(self, token_id: int) -> str:
        """The piece with an id, including `▁`."""
        return self._tokenizer.id_to_token(token_id) or ""

    def starts_word(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each token begins with `▁` or is the image token."""
        is_start: NDArray[np.bool_] = self._starts_word[ids]
        return is_start

    def _text_ids(self, encoding: Encoding) -> list[int]:
        # Normalisation (full-width letters, control characters) can produce a name that was not in the text.
        return [token_id for token_id in encoding.ids if token_id not in self._not_text]

    def _special_ids(self) -> frozenset[int]:
        """Ids of special tokens, except `<unk>`, which stands for unknown words."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        return frozenset(vocabulary[token] for token in vocabulary if _TEXT_SPECIALS.fullmatch(token)) - {self.unk_id}

    def _id_of(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise BundleError(
                f"the tokenizer has no token {token}, which T5's prompts need; use the model's own tokenizer"
            )
        return int(token_id)

    def _word_starts(self) -> NDArray[np.bool_]:
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        starts = np.zeros(max(vocabulary.values()) + 1, dtype=np.bool_)
        for token, token_id in vocabulary.items():
            starts[token_id] = token.startswith(WORD_START)
        starts[self.image_id] = True
        return starts


def without_specials(text: str) -> str:
    """The text without names of T5's special tokens, so that it cannot forge image slots or an end."""
    return _TEXT_SPECIALS.sub(" ", text)
