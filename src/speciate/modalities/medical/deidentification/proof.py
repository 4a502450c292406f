"""The proof of a de-identified file: a search in what was written for every identifying value of the original.

Identifying are the names, numbers, texts, dates and UIDs that the profile did not keep where they stood. Words that
every description of an image holds, UIDs of the standard, and values too short to identify anybody are none. Pixels are
not searched: a name that is burned into them is no text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

SEARCHED = ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "UI", "DA", "DT", "AE")
"""Types of elements that hold names, numbers of people, texts, dates or identifiers."""
TEXTS = (*SEARCHED, "CS", "AS", "DS", "IS", "TM", "UR")
_NAME = 0x00100010
_SHORTEST = 4
_DEEPEST = 64

Values = Mapping[int, set[str]]
"""Tag -> its values in a file, at any depth."""


class Proof(NamedTuple):
    originals: frozenset[str]
    """The identifying values, as they were written. They stand in no report."""
    found: tuple[int, ...]
    """Tags whose original value is in the output all the same."""


def values_of(dataset: Any, types: Collection[str] = SEARCHED, depth: int = 0) -> dict[int, set[str]]:
    """The values of these types by their tags, private ones included; sequences are walked."""
    found: dict[int, set[str]] = {}
    for tag, vr, value in _elements(dataset, depth):
        if vr in types:
            found.setdefault(tag, set()).update(filter(None, (part.strip(" \0") for part in value.split("\\"))))
    return found


def _elements(dataset: Any, depth: int) -> Iterator[tuple[int, str, str]]:
    from pydicom.datadict import dictionary_VR

    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        vr = str(raw.VR or "UN")
        if vr in ("UN", "None"):
            try:
                vr = dictionary_VR(tag)
            except KeyError:
                vr = "LO" if isinstance(raw.value, bytes) and raw.value.isascii() else "UN"
        if vr == "SQ" and depth < _DEEPEST:
            for item in dataset[tag].value:
                yield from _elements(item, depth + 1)
        elif isinstance(raw.value, bytes | str):
            text = raw.value if isinstance(raw.value, str) else raw.value.decode("latin-1")
            yield int(tag), vr, text
        elif vr in SEARCHED and raw.value is not None:
            parts = raw.value if hasattr(raw.value, "append") else [raw.value]
            yield int(tag), vr, "\\".join(map(str, parts))


def search(
    before: Values, after: Values, people: Collection[str], written: bytes, is_harmless: Callable[[str], bool]
) -> Proof:
    """The proof of the bytes `written`, without pixels. `after`: the values that the profile left; `people`: names and
    numbers of persons, which must not stand anywhere; `is_harmless`: of a value, whether it identifies nobody."""
    kept = {value for values in after.values() for value in values}

    def wanted(tag: int, value: str) -> bool:
        stays = value in (after.get(tag, ()) if value in people else kept)
        return len(value) >= _SHORTEST and not stays and not is_harmless(value)

    text, originals, found = written.lower(), set[str](), list[int]()
    for tag, values in sorted(before.items()):
        looked_for = {value for value in values if wanted(tag, value)}
        originals |= looked_for
        if any(_stands_in(value, text) for value in looked_for):
            found.append(tag)
    names = {value for value in people if wanted(_NAME, value)} - originals
    if any(_stands_in(value, text) for value in names):
        found.append(_NAME)
    return Proof(frozenset(originals | names), tuple(sorted(set(found))))


def _stands_in(value: str, text: bytes) -> bool:
    """Whether it is there as a whole, not as a part of a longer word, number or UID."""
    needle = value.lower().encode("latin-1", "replace")
    if needle not in text:
        return False
    edge = rb"[\w.]" if value.replace(".", "").isdigit() else rb"\w"
    return re.search(rb"(?<!" + edge + rb")" + re.escape(needle) + rb"(?!" + edge + rb")", text) is not None
