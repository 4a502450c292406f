"""Foreign text made safe to show: no control, direction or invisible characters, and no more than a fixed amount.

What others wrote stands below a field `untrusted`. Everything else in an answer is ours, but may quote names, so it is
cleaned too; only its keys are cut.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

FIELD = "untrusted"

_LONGEST_KEY = 64
_SENTENCES = ("reasons", "set_aside", "to_look_at")
"""Fields whose keys are no names of columns but reasons, or paths of files: whoever reads them needs the whole."""
_LONGEST_SENTENCE = 300
_LEAST = 200
"""Characters that every piece of foreign text may have, however many pieces there are."""
# C0 and C1 but tab and newline; direction marks and overrides; zero-width space, joiner-less marks and BOM; invisible
# tag characters; halves of surrogate pairs, which are no text at all. The zero-width joiner stays: emoji need it.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)
_MARK = "\N{REPLACEMENT CHARACTER}"


def clean_text(text: str) -> str:
    text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(_MARK, text)


def clean(document: Any, characters: int, keys: int = _LONGEST_KEY) -> Any:
    """A JSON document that is safe to show, with at most about `characters` of foreign text below each `untrusted`.
    `keys`: the longest that a key of it may be."""
    if isinstance(document, dict):
        return {
            _key(key, keys): _foreign(value, characters) if key == FIELD else clean(value, characters, _longest(key))
            for key, value in document.items()
            if not _is_hole(value)
        }
    if isinstance(document, list):
        return [clean(item, characters) for item in document]
    if isinstance(document, str):
        return clean_text(document)
    return None if _is_hole(document) else document


def _foreign(document: Any, characters: int) -> Any:
    pieces = _count(document)
    return _cut(document, max(_LEAST, characters // pieces)) if pieces else clean(document, characters)


def _count(document: Any) -> int:
    if isinstance(document, dict):
        return sum(_count(value) for value in document.values())
    if isinstance(document, list):
        return sum(_count(item) for item in document)
    return int(isinstance(document, str))


def _cut(document: Any, longest: int, keys: int = _LONGEST_KEY) -> Any:
    if isinstance(document, dict):
        return {
            _key(key, keys): _cut(value, longest, _longest(key))
            for key, value in document.items()
            if not _is_hole(value)
        }
    if isinstance(document, list):
        return [_cut(item, longest) for item in document]
    if isinstance(document, str):
        text = clean_text(document)
        return text if len(text) <= longest else f"{text[:longest]}… [{len(text) - longest:,} more characters]"
    return None if _is_hole(document) else document


def _longest(field: str) -> int:
    """Most characters of the keys below a field."""
    return _LONGEST_SENTENCE if field in _SENTENCES else _LONGEST_KEY


def _key(key: str, longest: int) -> str:
    """A label or column name: short, and still different from others that begin alike."""
    text = clean_text(key).replace("\n", " ")
    if len(text) <= longest:
        return text
    return f"{text[: longest - 8]}…{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:7]}"


def _is_hole(value: Any) -> bool:
    """Not a number: JSON has no word for it."""
    return isinstance(value, float) and not math.isfinite(value)
