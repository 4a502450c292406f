"""docs/design/friction.md lists what hindered people and agents: every row names tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "design" / "friction.md"


@cache
def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_point_names_a_test_that_there_is() -> None:
    rows = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 40
    missing = []
    for point, _, proof in rows:
        references = re.findall(r"`(\S+?)::(\w+)`", proof)
        assert references, point
        missing += [
            (point, path, name)
            for path, name in references
            if not (TESTS / path).is_file() or name not in functions(TESTS / path)
        ]
    assert missing == []
