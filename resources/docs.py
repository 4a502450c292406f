"""The guides of `docs/`, for agents that have no checkout."""

from __future__ import annotations

from pathlib import Path

import speciate
from speciate.errors import unknown
from speciate.server.tool_api import App, resource

_FOLDER = Path(speciate.__file__).parent / "docs"


def guides() -> list[str]:
    """Names of the guides: `index`, `datasets`, ..."""
    return sorted(path.stem for path in _FOLDER.glob("*.md"))


@resource("speciate://docs/{page}", mime="text/markdown")
def guide(app: App, page: str) -> str:
    """A guide of the documentation by its name; `index` lists them by goal."""
    name = page.removesuffix(".md")
    if name not in (known := guides()):
        raise unknown("guide", name, known, "Read speciate://docs/index.")
    return (_FOLDER / f"{name}.md").read_text()
