"""The sandboxed half of `tool_environment.py`: all environments of a run, each with a number.

open: {"source", "function", "name"}          `function` names the class
ask: {"reset": number, "row": {...}}          begins the environment of that number anew
     {"call": number, "tool", "arguments"}
     {"reward": number}
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from speciate.sandbox.serve import serve
from speciate.sandbox.user_code_process import CodeToLoad, load, to_json

LOST = "this environment ended with its process; it begins anew with the next question"


class Environments:
    kind: Callable[[], Any]

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def open(self, loading: CodeToLoad) -> None:
        self.kind = load(loading)

    def answer(self, question: Mapping[str, Any]) -> Any:
        if "reset" in question:
            number = question["reset"]
            if number not in self._made:
                self._made[number] = self.kind()
            random.seed(json.dumps(question["row"], sort_keys=True))  # a run that is broken off draws the same again
            return to_json(self._made[number].reset(**question["row"]))
        if "reward" in question:
            return to_json(self._of(question["reward"]).get_reward())
        return to_json(getattr(self._of(question["call"]), question["tool"])(**question["arguments"]))

    def _of(self, number: int) -> Any:
        if number not in self._made:
            raise RuntimeError(LOST)
        return self._made[number]


if __name__ == "__main__":
    serve(Environments())
