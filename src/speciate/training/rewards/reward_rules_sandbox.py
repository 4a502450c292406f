"""The sandboxed half of rule rewards: applies our own rules to foreign text, which it could make endless or large.

open: {"kind", "spec"}    ask: {"answers", "references", "cells"}  ->  [number, null or {"failure", "detail"}, ...]
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypedDict

from speciate.sandbox.serve import serve

SECONDS_EACH = 5.0
"""For one answer, where Python itself is at work; the wall limit of the call stands behind it."""
_RULES = {
    "regex": "speciate.training.rewards.reward_rules:regex_rule",
    "json_schema": "speciate.training.rewards.reward_rules:json_schema_rule",
    "math": "speciate.training.rewards.reward_rules:math_rule",
    "gym": "speciate.training.rewards.reward_rules:gym_rule",
}
Rule = Callable[[str, str | None, Any], Any]
"""From the result, the target and the cell of the spec's column to a number, None, or a failure."""


class RuleQuestion(TypedDict):
    """What a rule reads of each answer: its result (None: there is none), the reference, and the cell of the rule's
    column."""

    answers: Sequence[str | None]
    references: Sequence[str | None]
    cells: Sequence[Any]


class TooSlow(BaseException):
    """More than SECONDS_EACH for one answer. Not caught by libraries that catch every Exception."""


class Rules:
    rule: Rule

    def open(self, loading: Mapping[str, Any]) -> None:
        module, _, attribute = _RULES[loading["kind"]].partition(":")
        self.rule = getattr(import_module(module), attribute)(loading["spec"])

    def answer(self, question: RuleQuestion) -> list[Any]:
        each = zip(question["answers"], question["references"], question["cells"], strict=True)
        return [_apply_rule(self.rule, *one) for one in each]


def _apply_rule(rule: Rule, answer: str | None, reference: str | None, cell: Any) -> Any:
    if answer is None:  # it has no place where the result is looked for
        return 0.0
    signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH)
    try:
        return rule(answer, reference, cell)
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
    signal.signal(signal.SIGALRM, _on_alarm)
    serve(Rules())
