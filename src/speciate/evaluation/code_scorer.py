"""Whether a program that a model wrote passes the tests of its example: run, each in a cage and a process of its own.

The answer is Python, whole or in a fenced block (the last one); the column `tests` of the example holds asserts, which
run after it in the same namespace. To pass, the end of the tests must be reached: a program that leaves early, or
prints whatever it likes, does not. One that searches its own process for the word that says so could: look at answers
that pass too easily.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speciate.evaluation.caged_lines import CagedLines
from speciate.evaluation.own_scorer import Scored, ScorerError
from speciate.sandbox import CagePolicy

NAME, TESTS = "code_passes", "tests"
SECONDS = 10.0
"""For one program with its tests, after its process started."""
_START_SECONDS = 60.0
_CAGE = "speciate.evaluation.code_scorer_cage"
_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


def score_all(
    run_folder: Path, rows: Sequence[Mapping[str, Any]], *, policy: CagePolicy = "required", seconds: float = SECONDS
) -> list[Scored]:
    """1 where the answer passes, else 0, of each row `{"example": {"tests": ...}, "prediction": {"output": ...}}`.

    A wrong, slow or crashing program fails: it is a bad answer, no error. An example without tests is an error.
    UNAVAILABLE where this kernel has no cage.
    """
    return [_scored(run_folder, row, policy, seconds) for row in rows]


def _scored(run_folder: Path, row: Mapping[str, Any], policy: CagePolicy, seconds: float) -> Scored:
    tests, answer = row["example"].get(TESTS), row["prediction"].get("output")
    if not isinstance(tests, str) or not tests.strip():
        return ScorerError("not_a_number", f"the example has no text in the column {TESTS!r}")
    return {NAME: float(isinstance(answer, str) and _passes(run_folder, program(answer), tests, policy, seconds))}


def program(answer: str) -> str:
    """The last fenced block of an answer, else all of it."""
    blocks = _FENCED.findall(answer)
    return str(blocks[-1]) if blocks else answer


def _passes(folder: Path, source: str, tests: str, policy: CagePolicy, seconds: float) -> bool:
    word = secrets.token_hex(16)
    lines = CagedLines(_CAGE, folder, policy)
    try:
        lines.ask({"started": True}, _START_SECONDS)
        told = lines.ask({"program": source, "tests": tests, "word": word}, seconds)
    except (TimeoutError, EOFError):
        return False
    finally:
        lines.end()
    return isinstance(told, dict) and told.get("passed") == word
