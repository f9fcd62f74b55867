"""The demonstration's tokenizer: T5's conventions, with a vocabulary counted from the demonstration's own texts.

The vocabulary is counted, not trained, because the library's trainer gives different scores each time it runs.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_SPECIALS = ("<pad>", "</s>", "<unk>")
_EXTRA = tuple(f"<extra_id_{number}>" for number in reversed(range(100)))  # the last id is that of <extra_id_0>
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_WHOLE_NUMBERS = 1000  # numbers below are one token at the start of a word
_SPELLED_OUT = -14.0  # below the score of any counted word


def make_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A unigram tokenizer with the words of `texts` and all ASCII characters."""
    pieces = _counted_pieces(texts)
    vocabulary = [*((name, 0.0) for name in _SPECIALS), *pieces, *((name, 0.0) for name in _EXTRA)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=_SPECIALS.index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in (*_SPECIALS, *_EXTRA)])
    return tokenizer


def _counted_pieces(texts: Iterable[str]) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word in text.split():
            for place, match in enumerate(_WORD.finditer(word)):
                if not match[0].isdigit():
                    counts["▁" * (place == 0) + match[0]] += 1
    counts.update({f"▁{number}": 1 for number in range(_WHOLE_NUMBERS)})
    total = counts.total()
    scores = dict.fromkeys(("▁", *_CHARACTERS), _SPELLED_OUT)
    scores |= {piece: math.log(count / total) for piece, count in counts.items()}
    return sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))
