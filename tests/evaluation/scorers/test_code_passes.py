"""Programs as answers, run against their tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.evaluation.scorers.sandboxed_scorers import ScorerError, program, score_programs
from speciate.sandbox import is_complete

caged = pytest.mark.skipif(not is_complete(), reason="this kernel has no sandbox")
TESTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0\n"


def test_the_program_is_the_last_fenced_block_or_all() -> None:
    assert program("x = 1") == "x = 1"
    assert program("First:\n```python\nx = 1\n```\nBetter:\n```\nx = 2\n```\nDone.") == "x = 2\n"


@caged
@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("def add(a, b):\n    return a + b", 1),
        ("Here it is:\n```python\ndef add(a, b):\n    print('{}')\n    return a + b\n```", 1),
        ("def add(a, b):\n    return abs(a) + abs(b)", 0),
        ("def add(a, b) return", 0),
        ("import sys\nsys.exit(0)", 0),
        ("import os\nos._exit(0)", 0),
        ("import os\nos.write(1, b'{}\\n')\nos.write(2, b'{}\\n')", 0),
        ("x = [0] * 10**10\ndef add(a, b): return a + b", 0),
        ("import builtins\nbuiltins.exec = builtins.compile = lambda *given, **named: None", 0),
        (None, 0),
    ],
)
def test_only_what_reaches_the_end_of_the_tests_passes(tmp_path: Path, answer: str | None, passes: int) -> None:
    got = score_programs(tmp_path, [{"example": {"tests": TESTS}, "prediction": {"output": answer}}])
    assert got == [{"code_passes": passes}]
    assert not any(tmp_path.iterdir())


@caged
def test_an_endless_program_is_killed_and_fails(tmp_path: Path) -> None:
    row = {"example": {"tests": TESTS}, "prediction": {"output": "while True: pass"}}
    assert score_programs(tmp_path, [row], seconds=0.5) == [{"code_passes": 0}]


@caged
def test_one_program_changes_nothing_for_the_next(tmp_path: Path) -> None:
    spoilt = "import builtins\nbuiltins.abs = None\nopen('left', 'w').write('x')\ndef add(a, b): return a + b"
    looking = "import os\nassert abs(-1) == 1 and not os.path.exists('left')\ndef add(a, b): return a + b"
    rows = [{"example": {"tests": TESTS}, "prediction": {"output": each}} for each in (spoilt, looking)]
    assert score_programs(tmp_path, rows) == [{"code_passes": 1}] * 2


def test_an_example_without_tests_is_an_error(tmp_path: Path) -> None:
    (got,) = score_programs(tmp_path, [{"example": {}, "prediction": {"output": "x = 1"}}])
    assert isinstance(got, ScorerError)
