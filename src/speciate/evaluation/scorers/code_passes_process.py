"""The caged half of `code_scorer.py`: runs one program, then its tests, and says the word where they were passed."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def passes(program: str, tests: str) -> bool:
    """The tests are run by what this process began with: a program may put another `exec` or `compile` in its place."""
    space: dict[str, Any] = {"__name__": "program"}
    run = exec
    try:
        asserts = compile(tests, "tests", "exec", optimize=0)
        run(compile(program, "program", "exec"), space)
        run(asserts, space)
    except BaseException:  # noqa: BLE001 - a program may fail in any way, SystemExit among them
        return False
    return True


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    sink = os.open(os.devnull, os.O_WRONLY)  # what programs print is nobody's business
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    questions = sys.stdin.buffer
    questions.readline()
    answers.write(b"{}\n")
    asked = json.loads(questions.readline())
    word = asked.pop("word")
    told = {"passed": word} if passes(asked["program"], asked["tests"]) else {}
    answers.write(json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main()
