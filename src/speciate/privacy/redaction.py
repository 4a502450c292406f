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
    """Replaces texts. Pure. `names`: of datasets, models and use cases, in which nothing is replaced: a forgotten
    `acme` does not rename `acme-invoices`."""

    def __init__(self, texts: Collection[str], names: Collection[str] = ()) -> None:
        self._names = frozenset(names)
        self._whole = frozenset(texts)
        long = sorted((text for text in texts if len(text) >= _SHORT), key=lambda text: (-len(text), text))
        short = sorted(text for text in texts if len(text) < _SHORT)
        whole_names = sorted(self._names, key=lambda name: (-len(name), name))
        patterns = [rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in whole_names]
        patterns += [rf"(?<!\w){re.escape(text)}(?!\w)" for text in long]
        patterns += [rf"(?<=['\"]){re.escape(text)}(?=['\"])" for text in short]
        self._pattern = re.compile("|".join(patterns)) if texts else None

    def text(self, text: str) -> str:
        if text in self._whole:
            return PURGED
        return self._pattern.sub(self._replaced, text) if self._pattern else text

    def _replaced(self, found: re.Match[str]) -> str:
        return found[0] if found[0] in self._names else PURGED

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
        try:
            before = json.loads(written)
            after = self.document(before)
        except RecursionError:  # a model may answer with any number of brackets
            return self.text(written)
        return written if after == before else json.dumps(after, ensure_ascii=False)

    def cell(self, cell: str) -> str:
        """A text, a number, or a document as JSON."""
        try:
            document = json.loads(cell)
        except (ValueError, RecursionError):
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
