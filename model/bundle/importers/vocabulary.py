"""Tokenizers of foreign models, which must read texts as T5's does, since the models were trained with it."""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models

from model.errors import BundleError
from model.prompts.tokenizer import EOS, IMAGE, WORD_START

# Full-width letters, a ligature, a circled digit, a decomposed accent; letters, blanks and accents that stay.
_NORMALISED = (("\uff21\ufb01\u2460e\u0301", "Afi1\u00e9"), ("Toy \u00e9 \u00df", "Toy \u00e9 \u00df"))
_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_PADDED_TO, _MOST_PADDING = 64, 256
"""Embeddings may have rows without tokens, which hardware prefers: T5's 32,128 for 32,100 tokens."""


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a fast tokenizer from its file, or from a folder with a tokenizer.json."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise BundleError(
            f"{path.name} has no tokenizer.json; save the model's fast tokenizer there with save_pretrained of "
            "Hugging Face's T5TokenizerFast"
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise BundleError(f"{file.name} is not a readable tokenizer file: {error}") from error
    _require_rules_of_t5(tokenizer, file.name)
    return tokenizer


def check_size(tokenizer: Tokenizer, num_rows: int, where: str) -> None:
    """Raise BundleError for a tokenizer with another number of tokens than the embedding has rows, padding aside."""
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    is_padded = num_rows % _PADDED_TO == 0 and size < num_rows < size + _MOST_PADDING
    if size != num_rows and not is_padded:
        raise BundleError(
            f"{where}: the tokenizer has {size} tokens, but the embedding has {num_rows} rows; give the tokenizer that "
            "the model was trained with, all added tokens included"
        )


def _require_rules_of_t5(tokenizer: Tokenizer, name: str) -> None:
    """Raise BundleError, naming the rule, for a tokenizer that prepares texts otherwise than T5's."""
    rule = _broken_rule(tokenizer)
    if rule is not None:
        raise BundleError(
            f"{name} {rule}, so the model would read names otherwise than it was trained; give the tokenizer.json that "
            "was published with the model, or make it from its spiece.model with T5TokenizerFast and save_pretrained"
        )


def _broken_rule(tokenizer: Tokenizer) -> str | None:
    if not isinstance(tokenizer.model, models.Unigram):
        return f"is of the kind {type(tokenizer.model).__name__}, T5's is Unigram"
    if tokenizer.normalizer is None:
        return "has no normaliser, T5's is nmt_nfkc of SentencePiece"
    for text, due in _NORMALISED:
        found = tokenizer.normalizer.normalize_str(text)
        if found != due:
            return f"has another normaliser than T5's nmt_nfkc: it makes {found!r} of {text!r}, T5's {due!r}"
    if tokenizer.pre_tokenizer is None:
        return "has no pre-tokenizer, T5's is Metaspace"
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a toy")]
    if pieces != [f"{WORD_START}a", f"{WORD_START}toy"]:
        return f"has another pre-tokenizer than T5's Metaspace: it splits 'a toy' into {pieces}"
    return _broken_rule_of_specials(tokenizer)


def _broken_rule_of_specials(tokenizer: Tokenizer) -> str | None:
    ended = tokenizer.encode("a").ids
    if ended[-1:] != [tokenizer.token_to_id(EOS)] or ended[:-1] != tokenizer.encode("a", add_special_tokens=False).ids:
        return f"does not end texts with {EOS} alone, as T5's template does"
    first = tokenizer.token_to_id(IMAGE)
    if first is None:
        return f"has no token {IMAGE}, T5's has a hundred such"
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    for token, token_id in vocabulary.items():
        number = _SENTINEL.fullmatch(token)
        if number and token_id != first - int(number[1]):
            return f"has {token} as {token_id} and {IMAGE} as {first}, in T5's they count downwards"
    return None


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
