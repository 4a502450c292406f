"""docs/security.md promises nothing without a test."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"
_ROW = re.compile(r"\| (?P<promise>.+?) \| (?P<proof>`.+`) \|")


@cache
def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def _unproven(promise: str, proof: str) -> list[str]:
    found = []
    for reference in re.findall(r"`([^`]+)`", proof):
        path, _, name = reference.partition("::")
        if not (TESTS / path).is_file() or name not in _functions(TESTS / path):
            found.append(f"{promise}: there is no {reference}")
    return found


def test_every_promise_names_a_test_that_there_is() -> None:
    promises, _, _ = PAGE.read_text().partition("## What is not protected")
    rows = [line for line in promises.splitlines() if line.startswith("|") and not line.startswith(("|---", "| what"))]
    matches = [(row, _ROW.fullmatch(row)) for row in rows]
    assert [row for row, match in matches if match is None] == []
    assert [each for _, match in matches if match for each in _unproven(match["promise"], match["proof"])] == []
    assert len(rows) > 50


def test_outside_its_tables_the_page_promises_little() -> None:
    promises, _, _ = PAGE.read_text().partition("## What is not protected")
    prose = [line for line in promises.splitlines() if line and not line.startswith(("|", "#"))]
    assert len(prose) <= 6, prose
