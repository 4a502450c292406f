"""The guides of `docs/`, for agents that have no checkout."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import speciate
from speciate.errors import Code, SpeciateError, unknown
from speciate.server.tool_api import App, resource

_FOLDER = Path(speciate.__file__).parent / "docs"
MOST_BYTES = 15_000
"""The longest part of a guide, in bytes: some 4,000 tokens with its last line."""


def guides() -> list[str]:
    """Names of the guides: `index`, `datasets`, ..."""
    return sorted(path.stem for path in _FOLDER.glob("*.md"))


@resource("speciate://docs/{page}{?part}", mime="text/markdown")
def guide(app: App, page: str, part: int = 1) -> str:
    """A guide of the documentation by its name; `index` lists them by goal. A long one comes in parts."""
    name = page.removesuffix(".md")
    if name not in (known := guides()):
        raise unknown("guide", name, known, "Read speciate://docs/index.")
    parts = guide_parts(name)
    if not 1 <= part <= len(parts):
        raise SpeciateError(
            Code.NOT_FOUND, f"The guide {name!r} has {len(parts)} parts.", f"Read speciate://docs/{name}?part=1."
        )
    return parts[part - 1] + _further(name, parts, part)


@cache
def guide_parts(name: str) -> tuple[str, ...]:
    """The guide, cut before headings, else between lines, where it is longer than one answer may be."""
    parts, held = list[str](), ""
    for piece in _pieces((_FOLDER / f"{name}.md").read_text()):
        if held and len((held + piece).encode()) > MOST_BYTES:
            parts.append(held)
            held = ""
        held += piece
    return (*parts, held)


def _pieces(text: str) -> list[str]:
    """Sections; of one that is too long its lines."""
    pieces = list[str]()
    for section in re.split(r"(?m)^(?=## )", text):
        pieces += [section] if len(section.encode()) <= MOST_BYTES else section.splitlines(keepends=True)
    return pieces


def _further(name: str, parts: tuple[str, ...], part: int) -> str:
    """The last line of a part that others follow: where they are and what they are about."""
    left = [
        f"{number} ({', '.join(re.findall(r'(?m)^## (.+)$', text)) or 'the same, further'})"
        for number, text in enumerate(parts, 1)
        if number > part
    ]
    return (
        f"\n\nPart {part} of {len(parts)}. Read speciate://docs/{name}?part={part + 1}; parts: {'; '.join(left)}"
        if left
        else ""
    )
