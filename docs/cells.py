"""Runs a notebook that is written as text (cells between lines of `# %%`), and writes it as a page with its outputs.

    python docs/cells.py docs/first_model.py

A cell shows what it prints and, as in a notebook, the value of its last expression. Temporary folders are left out.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple


class Cell(NamedTuple):
    text: str
    is_code: bool


def cells(source: str) -> list[Cell]:
    """What lies before the first cell is about the file, not part of it."""
    parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)[1:]
    return [
        Cell(re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip() if "markdown" in kind else text.strip(), not kind)
        for kind, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def run(cell: str, names: dict[str, Any]) -> str:
    """What the cell shows. Raises what it raises."""
    tree, printed = ast.parse(cell), io.StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    shown = printed.getvalue() + (f"{value!r}\n" if value is not None and "subprocess" not in cell else "")
    return re.sub(re.escape(tempfile.gettempdir()) + r"/[\w.-]+", "FOLDER", shown)


def page(source: str) -> str:
    names: dict[str, Any] = {"__name__": "cells"}
    pieces = []
    for cell in cells(source):
        pieces.append(f"```python\n{cell.text}\n```" if cell.is_code else cell.text)
        if cell.is_code and (shown := run(cell.text, names)):
            pieces.append(f"```\n{shown.rstrip()}\n```")
    return "\n\n".join(pieces) + "\n"


def main() -> None:
    path = Path(sys.argv[1])
    path.with_name(path.stem.replace("_", "-") + ".md").write_text(page(path.read_text()))


if __name__ == "__main__":
    main()
