"""The sandboxed half of rule rewards: applies our own rules to foreign text, which it could make endless or large.

{'kind', 'spec'}  ->  {} or {'error'}
{'answers', 'truths', 'cells', 'mark'}  ->  {'value': [number, null or {'failure', 'detail'}], 'mark'}"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

SECONDS_EACH = 5.0
"""For one answer, where Python itself is at work; the wall limit of the call stands behind it."""
_RULES = {
    "regex": "speciate.training.rewards.reward_rules:regex_rule",
    "json_schema": "speciate.training.rewards.reward_rules:json_schema_rule",
    "math": "speciate.training.rewards.reward_rules:math_rule",
    "gym": "speciate.training.rewards.reward_rules:gym_rule",
}
Rule = Callable[[str, str | None, Any], Any]
"""Of the result, the target and the cell of the spec's column: a number, None, or a failure."""


class TooSlow(BaseException):
    """More than SECONDS_EACH for one answer. Not caught by libraries that catch every Exception."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    signal.signal(signal.SIGALRM, _on_alarm)
    rule: Rule | None = None
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if rule is None:
            told, rule = _load_rule(question)
        else:
            given = zip(question["answers"], question["truths"], question["cells"], strict=True)
            told = {"value": [_apply_rule(rule, *each) for each in given], "mark": question["mark"]}
        answers.write(json.dumps(told).encode() + b"\n")


def _load_rule(question: dict[str, Any]) -> tuple[dict[str, Any], Rule | None]:
    module, _, attribute = _RULES[question["kind"]].partition(":")
    try:
        return {}, getattr(import_module(module), attribute)(question["spec"])
    except Exception as error:  # noqa: BLE001 - whatever a library raises goes back as data
        return {"error": f"{type(error).__name__}: {error}"[:1000]}, None


def _apply_rule(rule: Rule, answer: str | None, truth: str | None, cell: Any) -> Any:
    if answer is None:  # it has no place where the result is looked for
        return 0.0
    signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH)
    try:
        return rule(answer, truth, cell)
    except TooSlow:
        return {"failure": "too_slow", "detail": f"more than {SECONDS_EACH:g} s"}
    except RecursionError:
        return {"failure": "raised", "detail": "RecursionError"}
    except Exception as error:  # noqa: BLE001 - whatever a library raises about foreign text goes back as data
        return {"failure": "raised", "detail": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _on_alarm(*_: Any) -> None:
    raise TooSlow


if __name__ == "__main__":
    main()
