"""Fake processes of versions that answer at once or misbehave on demand, so that deployments are tested without
models."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.sandbox.client import AnswerTimeout, ProcessDied
from speciate.serving.deployment_folder import Target
from speciate.serving.items import Item, ItemPrediction, Usage
from speciate.serving.replica import OnTexts

POISON, SLOW, NAN = "poison", "slow", "nan"


def target(version: int, *, generation: int | None = None, **more: Any) -> Target:
    fields: dict[str, Any] = {
        "generation": generation or version, "model": f"words@v{version}", "path": f"/models/words/v{version}",
        "task": "text-classification", "modality": "text", "inputs": ("text",),
    }  # fmt: skip
    return Target(**(fields | more))


class FakeProcess:
    """Answers each text with its version's name. `gate`: what an answer waits for."""

    def __init__(
        self,
        target: Target,
        *,
        failure: str | None = None,
        seconds: float = 0.0,
        nan: bool = False,
        gate: threading.Event | None = None,
        error: str | None = None,
    ) -> None:
        self._error = error
        self.target, self._failure, self._seconds, self._nan, self._gate = target, failure, seconds, nan, gate
        self.batches: list[int] = []
        self.given: list[float] = []
        """Seconds that it might take, for each batch."""
        self.ended = self.interrupted = False
        self.busy = threading.Event()
        self.cpu: float | None = None
        self.words: tuple[str, ...] = ()
        """Of the answer to a chat, one a token; without any it answers as it answers all."""
        self.next_word: threading.Semaphore | None = None
        """What each word after the first waits for."""
        self.dies_at: str | None = None
        self.written = 0

    def load(self, seconds: float) -> None:
        if self._failure:
            raise SpeciateError(Code.REFUSED, self._failure)

    def answer(self, items: Sequence[Item], seconds: float, heard: OnTexts | None = None) -> list[ItemPrediction]:
        assert not self.ended, "asked after its end"
        self.given.append(seconds)
        self.busy.set()
        if self._gate and not self._gate.wait(min(seconds, 30)):
            raise AnswerTimeout
        if self.interrupted:
            raise ProcessDied
        self.batches.append(len(items))
        texts = [str(item["text"] if "text" in item else item["row"]["text"]) for item in items]
        if POISON in texts:
            raise ProcessDied
        if SLOW in texts:
            raise AnswerTimeout
        time.sleep(self._seconds)
        if heard is not None and self.words:
            return [self._write(place, heard) for place in range(len(items))]
        return [
            {"id": "0", "output": self.target.model, "confidence": float("nan") if self._nan else 0.9,
             "error": self._error}
            for _ in texts
        ]  # fmt: skip

    def _write(self, place: int, heard: OnTexts) -> ItemPrediction:
        said: list[str] = []
        for word in self.words:
            if said and self.next_word:
                assert self.next_word.acquire(timeout=30)
            if word == self.dies_at:
                raise ProcessDied
            if heard({place: word}):
                break
            said.append(word)
            self.written = len(said)
        usage: Usage = {
            "prompt_tokens": 5, "completion_tokens": len(said), "finished": len(said) == len(self.words)
        }  # fmt: skip
        return {"id": "0", "output": "".join(said), "confidence": None, "error": None, "usage": usage}

    def cpu_seconds(self) -> float | None:
        return self.cpu

    def interrupt(self) -> None:
        self.interrupted = True
        if self._gate:
            self._gate.set()

    def end(self) -> None:
        self.ended = True
