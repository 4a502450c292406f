"""The caged half of `own_code.py`: one JSON line with the file's text, then one for each call.

    {"source", "function", "name"}  ->  {} or {"error"}
    {"call": [argument, ...], "mark"}  ->  {"value", "mark"} or {"error", "mark"}

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
    space: dict[str, Any] = {"__name__": "own_code", "__file__": question["name"]}
    exec(compile(question["source"], question["name"], "exec"), space)
    found = space[question["function"]]
    if not callable(found):
        raise TypeError(f"{question['function']} is no function")
    return found  # type: ignore[no-any-return]  # called with what it is documented to take


def to_json(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, so that they are JSON; an array of one number as that number."""
    if isinstance(value, dict):
        return {str(name): to_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if not hasattr(value, "tolist"):
        return value
    return value.item() if getattr(value, "size", 0) == 1 else value.tolist()


def reply_line(work: Callable[[], dict[str, Any]], mark: str | None = None) -> bytes:
    """What `work` returns, or what it raised, as a line that bears the mark of its question."""
    marked = {} if mark is None else {"mark": mark}
    try:
        return json.dumps(work() | marked).encode() + b"\n"
    except Exception as error:  # noqa: BLE001 - others' code may fail in any way; it goes back as data
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:1000], **marked}).encode() + b"\n"


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    space: dict[str, Callable[..., Any]] = {}

    def load_it() -> dict[str, Any]:
        space["function"] = load(question)
        return {}

    def call_it() -> dict[str, Any]:
        return {"value": to_json(space["function"](*question["call"]))}

    for line in sys.stdin.buffer:
        question = json.loads(line)
        answers.write(reply_line(load_it if "source" in question else call_it, question.get("mark")))


if __name__ == "__main__":
    main()
