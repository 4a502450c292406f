"""How a dataset names a class, whatever cell it comes from: one rule for ingest, labels, truths and feedback. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from speciate.modalities.tabular import plain

_LONGEST_CLASS, _BEGINNING = 64, 55  # characters
_SHORTENED = re.compile(r".{55}~[0-9a-f]{8}")
SHORTENED = "{count} classes have names of more than 64 characters: stored are the first 55 and a hash."


def class_name(value: Any) -> str:
    """A class as it is stored: 1 and 1.0 are the same one, a list is JSON. Empty where nothing of it can be printed."""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    text = str(value).lower() if isinstance(value, bool) else str(plain(value)).strip()
    return shortened("".join(c for c in text if c.isprintable()))


def shortened(name: str) -> str:
    """A class of at most 64 characters; of a longer one the beginning and a hash, which keeps it apart from others."""
    if len(name) <= _LONGEST_CLASS:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[:_BEGINNING]}~{digest[: _LONGEST_CLASS - _BEGINNING - 1]}"


def is_shortened(name: str) -> bool:
    return _SHORTENED.fullmatch(name) is not None
