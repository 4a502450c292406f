"""A page as a strict reader sees it: what is not nested as it should be is an error, and tables are counted."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from typing import NamedTuple

_VOID = {"img", "meta", "br"}


class Table(NamedTuple):
    caption: str
    heads: int
    rows: list[int]
    """Cells of each row of the body, its name among them."""


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        """Tag, name, value."""
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.tables: list[Table] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    @property
    def text(self) -> str:
        return "".join(self.words)

    def table(self, caption: str) -> Table:
        """The only one whose caption begins so."""
        (found,) = [table for table in self.tables if table.caption.startswith(caption)]
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append(Table("", 0, []))
        elif tag in ("th", "td") and "thead" in self._open:
            self.tables[-1] = self.tables[-1]._replace(heads=self.tables[-1].heads + 1)
        elif tag == "tr" and "tbody" in self._open:
            self.tables[-1].rows.append(0)
        elif tag in ("th", "td"):
            self.tables[-1].rows[-1] += 1
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.words.append(data)
        if "caption" in self._open:
            self.tables[-1] = self.tables[-1]._replace(caption=self.tables[-1].caption + data)
