"""Logs with answers in them, as a deployment would write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import LogFolder
from speciate.settings import Log as Settings
from tests.conftest import ManualClock

USE_CASE = "reviews"
ABOUT = AnsweringModel("films@v1", 1, "text")


def log(path: Path, clock: ManualClock, **settings: Any) -> AnswerLog:
    return AnswerLog(LogFolder(path / "logged" / USE_CASE), Settings(**settings), clock)


def said(output: Any = "good", confidence: float | None = 0.9, error: str | None = None) -> dict[str, Any]:
    return {"output": output, "confidence": confidence, "error": error}


def note(log: AnswerLog, items: Sequence[dict[str, Any]], about: AnsweringModel = ABOUT, **answer: Any) -> list[str]:
    """One answer for each, all with the same output; their ids."""
    ids = log.ids(len(items))
    assert log.note(ids, items, [said(**answer)] * len(items), about, 1.5)
    return ids


def texts(*given: str) -> list[dict[str, Any]]:
    return [{"id": str(place), "text": text} for place, text in enumerate(given)]
