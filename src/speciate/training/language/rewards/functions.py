"""A user's own reward: one function in one file, called with a batch of answers, in a cage that is kept over the run.

    def reward(questions, answers, truths, columns) -> list[float | None]

All four are lists of one length: messages `{"role", "content"}` of each question, the answers' texts, the targets as
texts, and the example's columns as a dict. None says that the reward does not apply to an answer. Where a batch was
lost, its answers are asked about one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.evaluation import own_code
from speciate.evaluation.own_code import Agreement
from speciate.sandbox import CagePolicy
from speciate.training.language.rewards.caged import CagedBatches
from speciate.training.language.rewards.reward import Asked, Marker
from speciate.training.language.rewards.specs import PythonReward

_HOW = "Name a file that is there: {'kind': 'python', 'file': 'path/to/file.py:FUNCTION'}."
_AGAIN = "Call train_model again: it is another reward now."


def opened(spec: PythonReward, folder: Path, policy: CagePolicy) -> Marker:
    """CONFLICT where the file has changed since it was bound."""
    path, function = parted(spec.file)
    agreed = Agreement(spec.sha256, "the training", _AGAIN if spec.sha256 else _HOW)
    load = own_code.loader(folder, path, function, agreed, policy, "reward")
    return CagedBatches(load, _call, spec.seconds)


def bound(spec: PythonReward) -> PythonReward:
    """With the file's absolute path and the sha256 of its bytes. NOT_FOUND, INVALID, or CONFLICT where it was bound to
    other bytes before."""
    path, function = parted(spec.file)
    found = own_code.describe(path.absolute(), function, _HOW)
    if spec.sha256 not in (None, found.sha256):
        raise SpeciateError(
            Code.CONFLICT,
            f"{path.name} has other bytes than those of sha256 {spec.sha256}.",
            "Leave sha256 out to take the file as it is now.",
        )
    return spec.model_copy(update={"file": f"{found.file}:{function}", "sha256": found.sha256})


def parted(ref: str) -> tuple[Path, str]:
    path, _, function = ref.rpartition(":")
    if not path or not function.isidentifier():
        raise SpeciateError(Code.INVALID, f"{ref!r} names no function of a file.", _HOW)
    return Path(path), function


def _call(asked: Sequence[Asked]) -> dict[str, Any]:
    questions = [[message.shown() for message in each.question] for each in asked]
    columns = [json.loads(json.dumps(dict(each.columns), default=str)) for each in asked]
    return {"call": [questions, [each.answer for each in asked], [each.truth for each in asked], columns]}
