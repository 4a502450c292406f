"""What a version must do before it gets traffic, and which noise does not count against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from speciate.serving import trial
from speciate.serving.trial import Unfit, attempt
from tests.serving.fakes import POISON, SLOW, FakeProcess, target

ITEMS = [{"text": text} for text in "abcdefgh"]


class Timed(FakeProcess):
    """By a clock of its own, which each answer moves by what is told."""

    def __init__(self, seconds: Sequence[float], monkeypatch: pytest.MonkeyPatch, limit: float | None) -> None:
        super().__init__(target(1, slowest_ms=limit))
        self._all, self.now, self.asked = list(seconds), 0.0, 0
        monkeypatch.setattr(trial.time, "monotonic", lambda: self.now)

    def answer(self, items: Sequence[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
        self.now += self._all[min(self.asked, len(self._all) - 1)]
        self.asked += 1
        return [{"id": "0", "output": "a", "confidence": 0.9, "error": None}]


def test_the_quickest_answer_of_each_example_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = [0.9] * 8 + [0.01] * 8 + [0.5] * 8
    tried = attempt(Timed(noisy, monkeypatch, 20.0), ITEMS, 300)
    assert (tried.examples, tried.median_ms) == (8, pytest.approx(10.0))


def test_half_of_the_answers_above_the_limit_are_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unfit, match="half of its answers take 30 ms or more, and the limit is 20 ms"):
        attempt(Timed([0.03], monkeypatch, 20.0), ITEMS, 300)
    assert attempt(Timed([0.03], monkeypatch, None), ITEMS, 300).median_ms == pytest.approx(30.0)


def test_a_busy_machine_does_not_count_against_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that waited for the processor most of the time."""
    waiting = Timed([0.5], monkeypatch, 20.0)
    monkeypatch.setattr(waiting, "cpu_seconds", lambda: 0.01 * waiting.now)
    assert attempt(waiting, ITEMS, 300).median_ms == pytest.approx(5.0)


def test_a_hopeless_version_is_not_asked_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = Timed([6.0], monkeypatch, 20.0)
    with pytest.raises(Unfit, match="too slow"):
        attempt(hopeless, ITEMS, 300)
    assert hopeless.asked == 3


def test_without_examples_loading_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempt(FakeProcess(target(1, slowest_ms=0.001)), [], 300).median_ms is None


@pytest.mark.parametrize(
    ("process", "items", "why"),
    [
        (FakeProcess(target(1), failure="Its files have changed."), ITEMS, "could not be loaded: Its files"),
        (FakeProcess(target(1)), [{"text": POISON}], "ended while it was loaded or tried"),
        (FakeProcess(target(1)), [{"text": SLOW}], "not loaded and tried within 7 s"),
        (FakeProcess(target(1), nan=True), ITEMS, "NaN or infinite"),
    ],
)
def test_what_fails_is_said(process: FakeProcess, items: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(Unfit, match=why):
        attempt(process, items, 7)


def test_an_example_that_cannot_be_answered_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeProcess(target(1))
    refused = {"id": "0", "output": None, "confidence": None, "error": "No 'x1'."}
    monkeypatch.setattr(process, "answer", lambda items, seconds: [refused])
    with pytest.raises(Unfit, match="cannot answer an example that it was trained on: No 'x1'"):
        attempt(process, ITEMS, 7)
