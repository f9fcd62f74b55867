"""Tokenizers of foreign models."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from model.errors import BundleError


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a fast tokenizer from its file, or from a folder with a tokenizer.json."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise BundleError(
            f"{path.name} has no tokenizer.json; save the model's fast tokenizer there with save_pretrained of "
            "Hugging Face's T5TokenizerFast"
        )
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise BundleError(f"{file.name} is not a readable tokenizer file: {error}") from error


def add_p5_tokens(tokenizer: Tokenizer, user_extra_ids: int, item_extra_ids: int) -> None:
    """Append P5's own tokens to the vocabulary: those of users, then those of items, in descending order.

    Raises BundleError if the tokenizer gives them different ids than P5 does.
    """
    names = [f"<user_id_{number}>" for number in reversed(range(user_extra_ids))]
    names += [f"<item_id_{number}>" for number in reversed(range(item_extra_ids))]
    if not names:
        return
    has_them = tokenizer.token_to_id(names[0]) is not None
    first_id = tokenizer.get_vocab_size(with_added_tokens=True) - (len(names) if has_them else 0)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    for offset, name in enumerate(names):
        token_id = tokenizer.token_to_id(name)
        if token_id != first_id + offset:
            raise BundleError(
                f"the tokenizer gives {name} the id {token_id}, P5 gives it {first_id + offset}; use the T5 tokenizer "
                "without P5's extra tokens"
            )
