"""Events as they are written, for tests of what is computed from them."""

from __future__ import annotations

from typing import Any

from speciate.workspace.database import Event

Step = tuple[float, str, str, dict[str, Any]]
USE_CASE = "use_case:digits"
CREATED: Step = (100.0, USE_CASE, "use_case.created", {"version": 1})


def history(*steps: Step) -> list[Event]:
    return [Event(seq, *step) for seq, step in enumerate(sorted(steps, key=lambda step: step[0]), 1)]


def moved(at: float, before: str | None, after: str, action: str = "promote") -> Step:
    return at, USE_CASE, "alias.moved", {"alias": "production", "before": before, "after": after, "action": action}


def told(when: float, model: str, kind: str = "production.answered", **more: Any) -> Step:
    return when, USE_CASE, kind, {"model": model, **more}


def survived(at: float, model: str) -> Step:
    return told(at, model, "promotion.survived", alias="production")


def job(at: float, name: str, state: str) -> Step:
    return at, name, f"job.{state}", {"attempt": 1}


def asked(at: float, approval: str, expires: float | None = 1e12) -> Step:
    return at, USE_CASE, "approval.requested", {"approval": approval, "action": "promote", "expires": expires}


def answered(at: float, approval: str) -> Step:
    return at, f"approval:{approval}", "approval.decided", {"state": "approved", "by": "ada"}


def decided(at: float, model: str, verdict: str = "promote") -> Step:
    return at, USE_CASE, "decision.made", {"candidate": model, "verdict": verdict}


def dataset(at: float) -> Step:
    return at, "dataset:digits", "dataset.created", {"version": 1}


def made(at: float, model: str, job: str = "job-t") -> Step:
    return at, "model:m", "model.created", {"model": model, "job": job}
