"""Asking a model on this machine for its answers, chunk by chunk; what was ever answered is not asked again.

An example that a model fails on is an answer with an error. Where a whole chunk fails, its examples are asked one by
one, so that one bad example costs only itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from speciate.datasets.loading.keys import keys
from speciate.datasets.loading.loader import Example
from speciate.evaluation import recorded
from speciate.evaluation.recorded import Journal, Kept, Key
from speciate.jobs.run import Run, Stopped
from speciate.tasks.contract import Prediction

CHUNK = 256
_COMPUTES = 1
"""Raised when our own code comes to answer otherwise from the same files."""
Item = TypeVar("Item")


class Answer(NamedTuple):
    """`output` as in Prediction; None with `error` where there is none."""

    output: Any
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None


Ask = Callable[[Sequence[Example]], Sequence[Prediction]]
Tell = Callable[[int], None]
"""Told how many of a model's answers are there."""


def answer_all(
    run: Run, identity: str, examples: Sequence[Example], ask: Ask, tell: Tell, repeat: int = 0, at_once: int = CHUNK
) -> list[Answer]:
    """One answer per example. `identity`: of everything that decides what the model answers; `repeat`: of one that may
    answer otherwise each time, which time it is. `at_once`: answers that are on disk together; a kill costs no more.

    Raises Stopped between chunks where the run was asked to stop.
    """
    asked = [Key(key, repeat) for key in keys(examples)]
    fingerprint = recorded.digest(f"{identity} {_COMPUTES}")
    known = {key: kept for key, kept in recorded.read(run.folders, fingerprint, asked).items() if not kept.passing}
    missing = {key: example for key, example in zip(asked, examples, strict=True) if key not in known}
    tell(len(examples) - len(missing))
    with Journal(run.folders, fingerprint, run.folder.path.name) as journal:
        for chunk in _chunks(list(missing.items()), at_once):
            if run.stopping:
                raise Stopped
            answers = _ask(ask, [example for _, example in chunk])
            kept = [(key, _kept(answer)) for (key, _), answer in zip(chunk, answers, strict=True)]
            journal.keep(kept)
            known |= dict(kept)
            tell(sum(key in known for key in asked))
    return [from_kept(known[key]) for key in asked]


def from_kept(kept: Kept) -> Answer:
    return Answer(kept.output, kept.confidence, kept.probabilities, kept.error)


def _kept(answer: Answer) -> Kept:
    """An error may have been the machine's, so the next evaluation asks again."""
    return Kept(
        answer.output, answer.confidence, answer.probabilities, answer.error, answer.error is not None,
        created=time.time(),
    )  # fmt: skip


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _ask(ask: Ask, chunk: Sequence[Example]) -> list[Answer]:
    try:
        return [_answer(prediction) for prediction in ask(chunk)]
    except Exception:  # noqa: BLE001 - a model may fail in any way; which example it was shows one by one
        return [_ask_one(ask, example) for example in chunk]


def _ask_one(ask: Ask, example: Example) -> Answer:
    try:
        return _answer(ask([example])[0])
    except Exception as error:  # noqa: BLE001 - recorded beside the example, and counted
        return Answer(None, error=f"{type(error).__name__}: {error}"[:300])


def _answer(prediction: Prediction) -> Answer:
    return Answer(prediction.output, prediction.confidence, prediction.probabilities)
