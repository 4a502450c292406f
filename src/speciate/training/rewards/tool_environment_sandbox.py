"""The caged half of `environment.py`: one JSON line with the file's text, then one for each call of an environment.

    {"source", "function", "name"}                ->  {} or {"error"}       `function` names the class
    {"reset": number, "row": {...}, "mark"}       ->  {"value", "mark"}     begins the environment of that number anew
    {"call": number, "tool", "arguments", "mark"} ->  {"value", "mark"}
    {"reward": number, "mark"}                    ->  {"value", "mark"}

What an environment raises comes back as {"error", "mark"}.
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

from speciate.sandbox.user_code_process import load, reply_line, to_json

LOST = "this environment ended with its process; it begins anew with the next question"


class Environments:
    """All of a run, each with a number."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._kind: Any = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if "source" in question:
            self._kind = load(question)
            return {}
        if "reset" in question:
            number = question["reset"]
            if number not in self._made:
                self._made[number] = self._kind()
            random.seed(json.dumps(question["row"], sort_keys=True))  # a run that is broken off draws the same again
            return {"value": to_json(self._made[number].reset(**question["row"]))}
        if "reward" in question:
            return {"value": to_json(self._of(question["reward"]).get_reward())}
        return {"value": to_json(getattr(self._of(question["call"]), question["tool"])(**question["arguments"]))}

    def _of(self, number: int) -> Any:
        if number not in self._made:
            raise RuntimeError(LOST)
        return self._made[number]


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    environments = Environments()
    for line in sys.stdin.buffer:
        question = json.loads(line)
        answers.write(reply_line(lambda asked=question: environments.answer(asked), question.get("mark")))  # type: ignore[misc]  # its default is the question


if __name__ == "__main__":
    main()
