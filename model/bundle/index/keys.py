"""The key of an index: a digest of everything that its content depends on."""

from __future__ import annotations

import hashlib
import json
import sys

import pyarrow as pa
import tokenizers

from model.bundle.index.layout import VERSION
from model.prompts.assembly import ITEM_PREFIX


def index_key(catalog_sha256: str, users_sha256: str | None, tokenizer_sha256: str) -> str:
    """Of the files that an index is made from, and of what makes it; 64 hexadecimal digits.

    The version of the format also stands for the rules by which columns are converted.
    """
    made_from = {
        "format": VERSION,
        "byte_order": sys.byteorder,
        "catalog": catalog_sha256,
        "users": users_sha256,
        "tokenizer": tokenizer_sha256,
        "prefix": ITEM_PREFIX,
        "libraries": [tokenizers.__version__, pa.__version__],
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
