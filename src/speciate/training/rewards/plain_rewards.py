"""Rewards that need no sandbox: `exact`, `numeric`, and `model` (a reward model of ours, in this process)."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models import registry, sealed
from speciate.tasks import language_predictor
from speciate.tasks.families import preference
from speciate.training.rewards.reward import MissingValue, RewardRequest, RewardValue
from speciate.training.rewards.reward_spec import ExactReward, ModelReward, NumericReward, Where
from speciate.workspace.workspace import Workspace


class ExactScorer:
    def __init__(self, spec: ExactReward) -> None:
        self._spec = spec

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardValue]:
        return [self._value(each) for each in requests]

    def close(self) -> None: ...

    def _value(self, request: RewardRequest) -> float | None:
        if request.reference is None:
            return None
        found = find_result(request.answer, self._spec.where, self._spec.marker)
        if found is None:
            return 0.0
        if not self._spec.normalise:
            return float(found == request.reference.strip())
        return float(normalise(found) == normalise(request.reference))


_NUMBER = re.compile(
    r"(?:(?<![\w%.)])[-+\u2212])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)\.?\d*|\.\d+)"
    r"(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+)?\s*%?"
)
"""As people write them: 1,200.5, -3/4, 12 %, 1e-3. What stands between two numbers (10-20, 2024-05-06) is no sign."""
_LONGEST_NUMBER = 400
"""Digits of a number that is looked at."""


class NumericScorer:
    """1 where the number in an answer is the reference's, else 0."""

    def __init__(self, spec: NumericReward) -> None:
        self._spec = spec

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardValue]:
        return [self._value(each) for each in requests]

    def close(self) -> None: ...

    def _value(self, request: RewardRequest) -> RewardValue:
        if request.reference is None:
            return None
        reference = last_number(request.reference)
        if reference is None:
            return MissingValue("not_a_number", f"the target has no number: {request.reference:.60}")
        found = find_result(request.answer, self._spec.where, self._spec.marker)
        said = None if found is None else last_number(found)
        return 0.0 if said is None else float(self._same(said, reference))

    def _same(self, said: Number, reference: Number) -> bool:
        """`12 %` is 0.12, and what is meant by 12 where percent are asked for; but 1 % is not 100 %."""
        if said.percent == reference.percent:
            return self._near(said.value, reference.value)
        parts = said.value / (100 if said.percent else 1), reference.value / (100 if reference.percent else 1)
        return self._near(said.value, reference.value) or self._near(*parts)

    def _near(self, said: float, reference: float) -> bool:
        return abs(said - reference) <= max(self._spec.tolerance, self._spec.relative * abs(reference))


class Number(NamedTuple):
    value: float
    """As it is written: of 12 % it is 12."""
    percent: bool


def last_number(text: str) -> Number | None:
    """The last number in a text; None where there is none that is finite."""
    found = [each for each in _NUMBER.findall(text) if any(map(str.isdecimal, each))]
    return _read_number(found[-1]) if found else None


def _read_number(text: str) -> Number | None:
    plain = text.replace(",", "").replace("\u2212", "-").replace(" ", "")
    if len(plain) > _LONGEST_NUMBER:
        return None
    above, _, below = plain.rstrip("%").partition("/")
    try:
        value = float(above) / (float(below) if below else 1.0)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return Number(value, plain.endswith("%")) if math.isfinite(value) else None


class ModelScorer:
    """The number that a reward model of ours gives an answer, computed in this process."""

    def __init__(self, spec: ModelReward, device: str = "cpu") -> None:
        """CONFLICT where the folder is not the model that was bound."""
        if spec.folder is None:
            raise SpeciateError(Code.INTERNAL, f"The reward model {spec.model!r} was not found yet.", "Call bound().")
        found = sealed.check(Path(spec.folder))
        if found != spec.sealed:
            raise SpeciateError(
                Code.CONFLICT,
                f"The folder of {spec.model} holds another model than when the training was asked for.",
                "Call train_model again.",
            )
        import torch

        self._model = language_predictor.load_reward_model(Path(spec.folder), torch.get_num_threads())
        self._model.model.to(device)

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardValue]:
        try:
            return list(self._model.numbers([(tuple(each.question), each.answer) for each in requests]))
        except SpeciateError:  # one of them is too long: each by itself
            return [self._alone(each) for each in requests]

    def close(self) -> None: ...

    def _alone(self, request: RewardRequest) -> RewardValue:
        try:
            return self._model.numbers([(tuple(request.question), request.answer)])[0]
        except SpeciateError as error:
            return MissingValue("raised", error.message)


def bind_model_reward(spec: ModelReward, workspace: Workspace) -> ModelReward:
    """With where the model lies. NOT_FOUND, or INVALID where it judges no answers."""
    found = registry.resolve(workspace.database, workspace.folders, spec.model)
    card = found.card
    if card.task != preference.PREFERENCE:
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref} does the task {card.task!r}, and a reward is given by a model of {preference.PREFERENCE!r}.",
            "Train one with train_model(method='reward'), from a dataset with better and worse answers.",
        )
    return spec.model_copy(update={"model": card.ref, "folder": str(found.path), "sealed": card.id})


_TAGS = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_MARGINS = " \t\r\n.。!\"'`*"
"""What may stand around a result and is no part of it."""


def find_result(answer: str, where: Where, marker: str = "####") -> str | None:
    """The result in an answer: all of it, its last line, what follows a marker, or what tags hold.

    None where the answer has no such place. Of several tags or markers the last one counts.
    """
    match where:
        case "whole":
            return answer.strip()
        case "last_line":
            lines = [line for line in answer.splitlines() if line.strip()]
            return lines[-1].strip() if lines else None
        case "after":
            _, found, after = answer.rpartition(marker)
            return after.strip().partition("\n")[0].strip() if found else None
        case "tags":
            inside = _TAGS.findall(answer)
            return str(inside[-1]).strip() if inside else None
        case "boxed":
            return _boxed(answer)


def _boxed(answer: str) -> str | None:
    r"""What the last `\boxed{...}` holds, braces within it among it."""
    start = answer.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for place in range(begin - 1, len(answer)):
        depth += {"{": 1, "}": -1}.get(answer[place], 0)
        if depth == 0:
            return answer[begin:place].strip()
    return None


def normalise(text: str) -> str:
    """The text in one form of Unicode, with folded case and single spaces, without what stands around a result."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_MARGINS)
