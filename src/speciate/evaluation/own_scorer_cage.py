"""The caged half of `own_scorer.py`: one JSON line with the file's text, then one for each example.

    {"source", "function", "name"}  ->  {} or {"error"}
    {"row": {"example", "prediction"}}  ->  {"score"} or {"error"}

What the code prints goes to stderr: the pipe carries answers only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def load(question: dict[str, Any]) -> Callable[..., Any]:
    """The function that the text defines."""
    space: dict[str, Any] = {"__name__": "speciate_own_scorer", "__file__": question["name"]}
    exec(compile(question["source"], question["name"], "exec"), space)
    found = space[question["function"]]
    if not callable(found):
        raise TypeError(f"{question['function']} is no function")
    return found  # type: ignore[no-any-return]  # called with what it is documented to take


def plain(value: Any) -> Any:
    """NumPy's numbers as Python's, so that they are JSON."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    return value.item() if hasattr(value, "item") else value


def told(work: Callable[[], dict[str, Any]]) -> bytes:
    """What `work` returns, or what it raised, as a line."""
    try:
        return json.dumps(work()).encode() + b"\n"
    except Exception as error:  # noqa: BLE001 - others' code may fail in any way; it goes back as data
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}).encode() + b"\n"


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    space: dict[str, Callable[..., Any]] = {}

    def loaded() -> dict[str, Any]:
        space["score"] = load(question)
        return {}

    for line in sys.stdin.buffer:
        question = json.loads(line)
        if "source" in question:
            answers.write(told(loaded))
        else:
            row = question["row"]
            answers.write(told(lambda row=row: {"score": plain(space["score"](row["example"], row["prediction"]))}))  # type: ignore[misc]  # mypy cannot type a default


if __name__ == "__main__":
    main()
