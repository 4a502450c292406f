"""A function in somebody's file, asked in a cage: it reads its file and the workspace's sealed data, has no network and
writes nothing that stays.

    def predict(inputs: list) -> list

An input is text, a table row as a dict, or a numpy array as its modality decodes it. An answer is a label, a number or
whatever the task's truths are; or a dict with `output` and, where it knows them, `confidence` and `probabilities`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.evaluation.answers import answer_all
from speciate.evaluation.predictors.code_service import packed
from speciate.evaluation.predictors.contract import Asked, Sheet
from speciate.evaluation.timing import measure
from speciate.jobs.pool import Pool
from speciate.settings import load
from speciate.tasks.contract import Prediction

_SERVICE = "speciate.evaluation.predictors.code_service:answer"
_SECONDS = 120.0
"""For a chunk of examples; what takes longer is killed, and its examples are asked one by one."""


def hand_in(asked: Asked) -> Sheet:
    task, contestant = asked.task, asked.contestant
    with contextlib.closing(Pool(asked.run.folders, load(asked.run.folders.root), size=1)) as pool:
        ask = _asker(pool, asked)
        times = [
            answer_all(asked.run, contestant.identity, asked.examples, ask, asked.tell, repeat)
            for repeat in range(task.repeats)
        ]
        answered = [example for example, answer in zip(asked.examples, times[0], strict=True) if answer.error is None]
        if not (answered and task.latency):
            return Sheet(contestant, tuple(times))
        return Sheet(contestant, tuple(times), measure(ask, answered, None, latency=True, seed=task.seed))


def _asker(pool: Pool, asked: Asked) -> Callable[[Sequence[Example]], list[Prediction]]:
    file, function = Path(asked.contestant.path or ""), asked.contestant.function
    code = {"file": str(file), "function": function, "identity": asked.contestant.identity}
    ask = partial(pool.ask, _SERVICE, timeout=_SECONDS, readable=frozenset({file}))

    def answers(examples: Sequence[Example]) -> list[Prediction]:
        payload: dict[str, Any] = code | {"inputs": [packed(example.media) for example in examples]}
        try:
            return [Prediction(*each) for each in ask(payload=payload)["answers"]]
        except SpeciateError as error:
            raise RuntimeError(error.message) from error

    return answers
