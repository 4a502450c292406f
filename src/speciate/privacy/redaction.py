"""Texts of forgotten rows out of what was written about them: whole words only, in sentences and in JSON.

What our own code writes into documents is no trace of anybody, so it is never replaced: a forgotten cell that says
`model` would otherwise take that key out of every report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import speciate

PURGED = "[purged]"
_SHORT = 4
"""A text of fewer characters is a trace only where it stands alone or in quotation marks."""
_OWN_WORD = re.compile(r"""(?<=["'])[A-Za-z_][\w.-]*(?=["'])|^    [a-z_]\w*(?=: )""", re.MULTILINE)


class TextRedactor:
    """Replaces texts. Pure."""

    def __init__(self, texts: Collection[str]) -> None:
        self._whole = frozenset(texts)
        long = sorted((text for text in texts if len(text) >= _SHORT), key=lambda text: (-len(text), text))
        short = sorted(text for text in texts if len(text) < _SHORT)
        patterns = [rf"(?<!\w){re.escape(text)}(?!\w)" for text in long]
        patterns += [rf"(?<=['\"]){re.escape(text)}(?=['\"])" for text in short]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def text(self, text: str) -> str:
        if text in self._whole:
            return PURGED
        return self._pattern.sub(PURGED, text) if self._pattern else text

    def document(self, document: Any) -> Any:
        """A document of the same shape, every string of which, keys too, lacks the texts."""
        if isinstance(document, str):
            return self.text(document)
        if isinstance(document, dict):
            return {self.text(key): self.document(value) for key, value in document.items()}
        if isinstance(document, list):
            return [self.document(value) for value in document]
        return document

    def json(self, written: str) -> str:
        """A document as JSON; as it was written where nothing is replaced. Raises ValueError for what is no JSON."""
        before = json.loads(written)
        after = self.document(before)
        return written if after == before else json.dumps(after, ensure_ascii=False)

    def cell(self, cell: str) -> str:
        """A text, a number, or a document as JSON."""
        try:
            document = json.loads(cell)
        except ValueError:
            return self.text(cell)
        if isinstance(document, int | float):  # also true and false
            return PURGED if cell in self._whole else cell
        return self.json(cell)


@cache
def own_words() -> frozenset[str]:
    """Every name in quotation marks and every field of a class in this package's source: some 6,000, among them the
    keys and values of all documents that it writes."""
    sources = (path.read_text() for path in Path(speciate.__file__).parent.rglob("*.py"))
    return frozenset(word.strip() for source in sources for word in _OWN_WORD.findall(source))
